//! The limits of one route or listener on who opens WebSockets: how often, and how many at once.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::address::{AddressKey, Buckets};
use super::meter::Meter;
use super::places::{Caps, Full, Place, Places};
use crate::io::clock::Millis;
use crate::snapshot::Admission;

/// What is counted. Outlives configurations; their rules come along with each question.
#[derive(Debug)]
pub struct Limiter<H> {
    places: Arc<Places<H>>,
    handshakes: Meter,
    by_address: Mutex<Option<Buckets>>,
}

impl<H> Default for Limiter<H> {
    fn default() -> Self {
        Self { places: Arc::default(), handshakes: Meter::default(), by_address: Mutex::default() }
    }
}

impl<H> Limiter<H> {
    /// Counts a handshake of this address.
    ///
    /// # Errors
    /// How long until the address may ask again.
    pub fn pace_address(&self, rules: &Admission, address: Option<IpAddr>, now: Millis) -> Result<(), Millis> {
        let (Some(rate), Some(address)) = (rules.handshakes_per_ip, key(rules, address)) else { return Ok(()) };
        let mut buckets = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let same = buckets.take().filter(|buckets| buckets.has_rate(&rate));
        buckets.insert(same.unwrap_or_else(|| Buckets::new(rate, now))).take(address, now)
    }

    /// Counts a handshake.
    ///
    /// # Errors
    /// How long until somebody may ask again.
    pub fn pace(&self, rules: &Admission, now: Millis) -> Result<(), Millis> {
        rules.handshakes.map_or(Ok(()), |rate| self.handshakes.take(&rate, now))
    }

    /// Takes a place; none where places are not counted.
    ///
    /// # Errors
    /// Which limit leaves none.
    pub fn enter(&self, rules: &Admission, address: Option<IpAddr>) -> Result<Option<Box<Place<H>>>, Full> {
        let Some(caps) = caps(rules) else { return Ok(None) };
        self.places.enter(caps, key(rules, address)).map(|place| Some(Box::new(place)))
    }

    /// Counts one that was open before places were.
    pub fn adopt(&self, rules: &Admission, address: Option<IpAddr>, holder: H) -> Option<Box<Place<H>>> {
        caps(rules).map(|caps| Box::new(self.places.adopt(caps, key(rules, address), holder)))
    }
}

fn caps(rules: &Admission) -> Option<Caps> {
    let caps = Caps { all: rules.websockets, by_address: rules.connections_per_ip, over: rules.over };
    (caps.all.is_some() || caps.by_address.is_some()).then_some(caps)
}

fn key(rules: &Admission, address: Option<IpAddr>) -> Option<AddressKey> {
    address.map(|address| AddressKey::new(address, rules.ipv6_prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Over, Rate};

    const RULES: Admission = Admission {
        websockets: None,
        connections_per_ip: Some(1),
        handshakes: Some(Rate { count: 2, per: 1000, burst: 2 }),
        handshakes_per_ip: Some(Rate { count: 1, per: 1000, burst: 1 }),
        over: Over::Refuse,
        ipv6_prefix: 64,
    };

    #[test]
    fn a_rate_that_changes_holds_at_once() {
        let limiter = Limiter::<u32>::default();
        assert_eq!([0, 0, 0].map(|now| limiter.pace(&RULES, now)), [Ok(()), Ok(()), Err(500)]);
        assert_eq!(limiter.pace(&RULES.clone(), 0), Err(500));
        let faster = Admission { handshakes: Some(Rate { count: 10, per: 1000, burst: 11 }), ..RULES };
        assert_eq!([0, 0].map(|now| limiter.pace(&faster, now)), [Ok(()), Err(100)]);
        assert_eq!(limiter.pace(&Admission { handshakes: None, ..RULES }, 0), Ok(()));
    }

    #[test]
    fn nobody_s_address_is_counted_for_nobody() {
        let (limiter, address) = (Limiter::<u32>::default(), "192.0.2.1".parse().ok());
        assert_eq!([address, address].map(|from| limiter.pace_address(&RULES, from, 0)), [Ok(()), Err(1000)]);
        assert_eq!([None, None].map(|from| limiter.pace_address(&RULES, from, 0)), [Ok(()), Ok(())]);
        let held = limiter.enter(&RULES, address).unwrap();
        assert!(limiter.enter(&RULES, address).is_err() && limiter.enter(&RULES, None).is_ok());
        drop(held);
        assert!(limiter.enter(&RULES, address).unwrap().is_some());
        assert!(limiter.enter(&Admission { connections_per_ip: None, ..RULES }, address).unwrap().is_none());
    }
}
