//! What may be done how fast, and by whom. Pure: facts and `now` come in, verdicts go out.

mod address;
mod allowance;
mod bucket;
mod limiter;
mod meter;
mod origin;
mod places;

pub use self::allowance::Allowance;
pub use self::limiter::Limiter;
pub use self::meter::Meter;
pub use self::origin::{Page, admits};
pub use self::places::{Full, Place};
