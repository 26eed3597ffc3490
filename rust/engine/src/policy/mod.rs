//! What may be done how fast, and by whom. Pure: facts and `now` come in, verdicts go out.

mod meter;
mod origin;

pub use self::meter::Meter;
pub use self::origin::{Page, admits};
