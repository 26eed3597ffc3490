//! How many WebSockets may be open at once: of all clients together, and of each address.
//!
//! A place is taken when a handshake begins and held until the connection has gone, whatever becomes of it:
//!
//! ```text
//!   enter ─▶ entering ──open──▶ open ──────────────▶ dropped
//!                │               │                      ▲
//!                │               └─ evicted ─▶ leaving ─┤
//!                └──────────────────────────────────────┘
//! ```
//!
//! Where the oldest is evicted, that happens only when the new one really opens: an attempt that comes to nothing costs
//! nobody a connection. What is entering and leaving meanwhile is as bounded as what is open, so there are at most
//! twice as many as the limit says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::address::AddressKey;
use crate::snapshot::Over;

/// What holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Of all clients.
    pub all: Option<u64>,
    /// Of one address.
    pub by_address: Option<u64>,
    pub over: Over,
}

/// Which limit has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    All,
    Address,
}

/// Some of the places are given away. `H` names who holds one.
#[derive(Debug)]
pub struct Places<H>(Mutex<Books<H>>);

#[derive(Debug)]
struct Books<H> {
    /// Those that are open, the oldest first.
    open: BTreeMap<u64, (H, Option<AddressKey>)>,
    all: Crowd,
    addresses: HashMap<AddressKey, Crowd>,
    serial: u64,
}

/// Those that count together.
#[derive(Debug, Default)]
struct Crowd {
    entering: u64,
    open: BTreeSet<u64>,
    leaving: u64,
}

impl Crowd {
    fn has_room(&self, most: Option<u64>, over: Over) -> bool {
        let passing = self.entering + self.leaving;
        most.is_none_or(|most| match over {
            Over::Refuse => passing + (self.open.len() as u64) < most,
            Over::Evict => passing < most,
        })
    }

    fn is_empty(&self) -> bool {
        self.entering + self.leaving == 0 && self.open.is_empty()
    }

    /// The oldest, where there are more than there may be.
    fn surplus(&self, most: Option<u64>) -> Option<u64> {
        self.open.first().copied().filter(|_| most.is_some_and(|most| self.open.len() as u64 > most))
    }
}

impl<H> Default for Places<H> {
    fn default() -> Self {
        let books = Books { open: BTreeMap::new(), all: Crowd::default(), addresses: HashMap::new(), serial: 0 };
        Self(Mutex::new(books))
    }
}

impl<H> Places<H> {
    fn books(&self) -> MutexGuard<'_, Books<H>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a handshake.
    ///
    /// # Errors
    /// Which limit leaves none.
    pub fn enter(self: &Arc<Self>, caps: Caps, address: Option<AddressKey>) -> Result<Place<H>, Full> {
        let mut books = self.books();
        let crowd = address.and_then(|address| books.addresses.get(&address));
        if !crowd.is_none_or(|crowd| crowd.has_room(caps.by_address, caps.over)) {
            return Err(Full::Address);
        }
        if !books.all.has_room(caps.all, caps.over) {
            return Err(Full::All);
        }
        books.each(address, |crowd| crowd.entering += 1);
        Ok(Place { places: self.clone(), caps, address, serial: None })
    }

    /// Takes a place for one that is open already, whether there is room or not.
    pub fn adopt(self: &Arc<Self>, caps: Caps, address: Option<AddressKey>, holder: H) -> Place<H> {
        let mut books = self.books();
        let serial = Some(books.admit(holder, address));
        Place { places: self.clone(), caps, address, serial }
    }
}

impl<H> Books<H> {
    /// Does something with each crowd that counts this one.
    fn each(&mut self, address: Option<AddressKey>, change: impl Fn(&mut Crowd)) {
        change(&mut self.all);
        if let Some(address) = address {
            change(self.addresses.entry(address).or_default());
            if self.addresses.get(&address).is_some_and(Crowd::is_empty) {
                self.addresses.remove(&address);
            }
        }
    }

    fn admit(&mut self, holder: H, address: Option<AddressKey>) -> u64 {
        self.serial += 1;
        let serial = self.serial;
        self.open.insert(serial, (holder, address));
        self.each(address, |crowd| {
            crowd.open.insert(serial);
        });
        serial
    }

    fn evict(&mut self, serial: u64) -> Option<H> {
        let (holder, address) = self.open.remove(&serial)?;
        self.each(address, |crowd| {
            crowd.open.remove(&serial);
            crowd.leaving += 1;
        });
        Some(holder)
    }
}

/// A place, until dropped.
#[derive(Debug)]
pub struct Place<H> {
    places: Arc<Places<H>>,
    caps: Caps,
    address: Option<AddressKey>,
    /// None until it is open.
    serial: Option<u64>,
}

impl<H> Place<H> {
    /// The connection is open, and `holder` can be reached. Returns those that must go for it.
    pub fn open(&mut self, holder: H) -> Vec<H> {
        let mut books = self.places.books();
        books.each(self.address, |crowd| crowd.entering -= 1);
        self.serial = Some(books.admit(holder, self.address));
        let mut evicted = Vec::new();
        if self.caps.over == Over::Evict {
            let crowd = self.address.and_then(|address| books.addresses.get(&address));
            let of_address = crowd.and_then(|crowd| crowd.surplus(self.caps.by_address));
            evicted.extend(of_address.and_then(|serial| books.evict(serial)));
            let of_all = books.all.surplus(self.caps.all);
            evicted.extend(of_all.and_then(|serial| books.evict(serial)));
        }
        evicted
    }
}

impl<H> Drop for Place<H> {
    fn drop(&mut self) {
        let mut books = self.places.books();
        match self.serial {
            None => books.each(self.address, |crowd| crowd.entering -= 1),
            Some(serial) if books.open.remove(&serial).is_some() => {
                books.each(self.address, |crowd| {
                    crowd.open.remove(&serial);
                });
            }
            Some(_) => books.each(self.address, |crowd| crowd.leaving -= 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn caps(all: u64, by_address: u64, over: Over) -> Caps {
        Caps { all: Some(all), by_address: Some(by_address), over }
    }

    fn address(number: u8) -> Option<AddressKey> {
        Some(AddressKey::new(IpAddr::from([192, 0, 2, number]), 64))
    }

    fn opened(places: &Arc<Places<u32>>, caps: Caps, from: u8, holder: u32) -> (Place<u32>, Vec<u32>) {
        let mut place = places.enter(caps, address(from)).unwrap();
        let evicted = place.open(holder);
        (place, evicted)
    }

    #[test]
    fn places_are_given_back_whatever_became_of_them() {
        let (places, two) = (Arc::new(Places::<u32>::default()), caps(2, 1, Over::Refuse));
        let entering = places.enter(two, address(1)).unwrap();
        assert_eq!(places.enter(two, address(1)).unwrap_err(), Full::Address);
        let (open, _) = opened(&places, two, 2, 7);
        assert_eq!(places.enter(two, address(3)).unwrap_err(), Full::All);
        assert_eq!(places.enter(two, None).unwrap_err(), Full::All);
        drop(entering);
        assert!(places.enter(two, address(2)).is_err());
        drop(open);
        assert!(places.enter(two, address(2)).is_ok());
        assert!(places.books().addresses.is_empty());
    }

    #[test]
    fn the_oldest_of_the_address_goes_first_and_only_when_the_new_one_opens() {
        let (places, evicting) = (Arc::new(Places::<u32>::default()), caps(3, 2, Over::Evict));
        let first: Vec<_> =
            [(1, 10), (2, 20), (1, 11)].map(|(from, holder)| opened(&places, evicting, from, holder)).into();
        assert!(first.iter().all(|(_, evicted)| evicted.is_empty()));
        drop(places.enter(evicting, address(1)).unwrap());
        let (fourth, evicted) = opened(&places, evicting, 1, 12);
        assert_eq!(evicted, [10]);
        let (fifth, evicted) = opened(&places, evicting, 3, 30);
        assert_eq!(evicted, [20]);
        // Two are on their way out and one may come in; then all wait for the first to have gone.
        let sixth = places.enter(evicting, address(4)).unwrap();
        assert_eq!(places.enter(evicting, address(5)).unwrap_err(), Full::All);
        drop((first, fourth, fifth, sixth));
        assert!(places.books().addresses.is_empty() && places.books().all.is_empty() && places.books().open.is_empty());
    }

    #[test]
    fn who_was_there_before_counts() {
        let (places, one) = (Arc::new(Places::<u32>::default()), caps(1, 1, Over::Refuse));
        let both = [places.adopt(one, address(1), 1), places.adopt(one, None, 2)];
        assert_eq!(places.enter(one, address(2)).unwrap_err(), Full::All);
        drop(both);
        assert!(places.enter(one, address(2)).is_ok());
    }

    proptest! {
        /// Whatever happens in whatever order: never more than the limits, and nothing is left at the end.
        #[test]
        fn the_books_add_up(evict in any::<bool>(), steps in proptest::collection::vec((0..4u8, 1..5u8, any::<prop::sample::Index>()), 0..120)) {
            let over = if evict { Over::Evict } else { Over::Refuse };
            let (places, caps) = (Arc::new(Places::<u32>::default()), caps(4, 2, over));
            let mut held: Vec<Place<u32>> = Vec::new();
            for (step, from, index) in steps {
                match step {
                    0 | 1 => held.extend(places.enter(caps, address(from))),
                    2 if !held.is_empty() => {
                        let place = index.get(&held).serial.is_none().then(|| index.index(held.len()));
                        if let Some(place) = place {
                            held[place].open(0);
                        }
                    }
                    _ if !held.is_empty() => drop(held.swap_remove(index.index(held.len()))),
                    _ => {}
                }
                let books = places.books();
                prop_assert!(books.all.open.len() <= 4 && books.all.entering + books.all.leaving <= 8);
                prop_assert_eq!(books.open.len(), books.all.open.len());
                for crowd in books.addresses.values() {
                    prop_assert!(crowd.open.len() <= 2 && !crowd.is_empty());
                }
                if !evict {
                    prop_assert!(held.len() <= 4);
                }
            }
            drop(held);
            prop_assert!(places.books().all.is_empty() && places.books().addresses.is_empty() && places.books().open.is_empty());
        }
    }
}
