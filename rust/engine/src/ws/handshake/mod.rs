//! The opening handshake (RFC 6455 §4) as a gateway sees it: two handshakes, one on each side.
//!
//! ```text
//!  client's request ── classify ──▶ Offer ── offer ──▶ request with a key of our own ──▶ upstream
//!  client ◀── answer ── Accepted ◀── check_answer ── the upstream's 101, or a Fake
//! ```
//!
//! The key and its answer belong to one connection, so each side gets its own; that the upstream knows the answer to
//! our fresh key proves that it, and no cache or confused proxy, accepted. Fields that belong to one connection (RFC
//! 9110 §7.6.1) are dropped in both directions, as are all `Sec-WebSocket-*` fields but those written here. Nothing of
//! the client's stream behind its head may be sent before [`check_answer`] said yes.

mod answer;
mod attempt;
mod connection;
mod key;
mod offer;

pub use answer::{Accepted, Fake, answer_fields, check_answer, check_choices, check_opaque_answer};
pub use attempt::{Attempt, Offer, Opaque, classify, classify_connect, classify_opaque, hixie76};
pub use connection::declares_body;
pub use key::{accept_key, fresh_key};
pub use offer::{OfferRules, Offered, offer_fields};

const KEY: &str = "Sec-WebSocket-Key";
const ACCEPT: &str = "Sec-WebSocket-Accept";
const VERSION: &str = "Sec-WebSocket-Version";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";
const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
