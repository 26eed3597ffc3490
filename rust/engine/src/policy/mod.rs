//! What may be done how fast. Pure: `now` is an argument.

mod meter;

pub use self::meter::Meter;
