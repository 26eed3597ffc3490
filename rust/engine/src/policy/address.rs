//! What is counted by client address.
//!
//! An IPv6 client has a whole network to choose its address from, so IPv6 addresses count by a prefix (64 bits when not
//! said otherwise). That leaves somebody with a /32 four billion of them, so nothing here grows with the addresses that
//! have been seen:
//!
//! * *Places* by address ([`super::places`]) exist only while a connection holds one, so there are never more than
//!   connections, each of which costs its client more memory than us.
//! * *Buckets* by address stand in a table of a fixed size (1 MiB, made when the first address comes), in rows of eight by
//!   a hash that nobody outside can compute. In a full row the fullest bucket makes room: its address has asked for least,
//!   and is the next time only as free as one that was never seen. Who floods the table can so make others forgotten, in
//!   their favour, and never refused; against the flood itself stand the limits of the route and the listener, which have
//!   one bucket each.

use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::DefaultHashBuilder;

use super::bucket::Bucket;
use crate::io::clock::Millis;
use crate::snapshot::Rate;

const ROWS: usize = 4096;
const IN_A_ROW: usize = 8;

/// An address, or the network that stands for it. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey(u128);

impl AddressKey {
    /// `prefix` is that of IPv6. An IPv4 address is itself, also in its IPv6 form.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u128::from(address.to_ipv6_mapped())),
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.clamp(1, 128))).unwrap_or(u128::MAX);
                // `::` is nobody's address; 1 keeps it from standing for an empty slot.
                Self((u128::from(address) & mask).max(1))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// 0 is empty.
    key: u128,
    bucket: Bucket,
}

/// Buckets of one rate, by address.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    slots: Vec<Slot>,
    hasher: DefaultHashBuilder,
}

impl Buckets {
    pub fn new(rate: Rate, now: Millis) -> Self {
        let empty = Slot { key: 0, bucket: Bucket::full(&rate, now) };
        Self { rate, slots: vec![empty; ROWS * IN_A_ROW], hasher: DefaultHashBuilder::default() }
    }

    pub fn has_rate(&self, rate: &Rate) -> bool {
        self.rate == *rate
    }

    /// Takes a token of this address.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, address: AddressKey, now: Millis) -> Result<(), Millis> {
        let row = self.hasher.hash_one(address) as usize % ROWS;
        let row = &mut self.slots[row * IN_A_ROW..][..IN_A_ROW];
        row.iter_mut().for_each(|slot| slot.bucket.refill(&self.rate, now));
        let known = row.iter().position(|slot| slot.key == address.0);
        let fullest = || (0..row.len()).max_by_key(|index| row[*index].bucket.level()).unwrap_or(0);
        let slot = known.unwrap_or_else(fullest);
        if known.is_none() {
            row[slot] = Slot { key: address.0, bucket: Bucket::full(&self.rate, now) };
        }
        let bucket = &mut row[slot].bucket;
        if bucket.take(&self.rate, 1) { Ok(()) } else { Err(bucket.wait(&self.rate, 1)) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn key(text: &str, prefix: u8) -> AddressKey {
        AddressKey::new(text.parse().unwrap(), prefix)
    }

    #[test]
    fn networks_of_ipv6_count_as_one_and_addresses_of_ipv4_each() {
        assert_eq!(key("2001:db8::1", 64), key("2001:db8::ffff:1", 64));
        assert_ne!(key("2001:db8::1", 64), key("2001:db8:0:1::1", 64));
        assert_eq!(key("2001:db8::1", 48), key("2001:db8:0:1::1", 48));
        assert_ne!(key("2001:db8::1", 128), key("2001:db8::2", 128));
        assert_ne!(key("192.0.2.1", 1), key("192.0.2.2", 1));
        assert_eq!(key("192.0.2.1", 64), key("::ffff:192.0.2.1", 64));
        assert_ne!(key("::", 64).0, 0);
    }

    #[test]
    fn each_address_has_its_own() {
        let mut buckets = Buckets::new(Rate { count: 1, per: 1000, burst: 2 }, 0);
        let (one, two) = (key("192.0.2.1", 64), key("192.0.2.2", 64));
        assert_eq!([one, one, one, two].map(|key| buckets.take(key, 0)), [Ok(()), Ok(()), Err(1000), Ok(())]);
        assert_eq!(buckets.take(one, 999), Err(1));
        assert_eq!(buckets.take(one, 1000), Ok(()));
    }

    /// A million networks: the table stays as it is, and who had asked for more than the others is not forgotten.
    #[test]
    fn a_flood_takes_no_memory_and_forgets_those_who_asked_least() {
        let mut buckets = Buckets::new(Rate { count: 1, per: 3_600_000, burst: 2 }, 0);
        let (size, greedy) = (buckets.slots.capacity(), key("192.0.2.1", 64));
        assert!(buckets.take(greedy, 0).is_ok() && buckets.take(greedy, 0).is_ok());
        for network in 0..1_000_000u128 {
            let flood = IpAddr::V6(Ipv6Addr::from((0x2001_0db8 << 96) | (network << 64)));
            assert!(buckets.take(AddressKey::new(flood, 64), 0).is_ok());
        }
        assert!(buckets.take(greedy, 0).is_err());
        assert_eq!(buckets.slots.capacity(), size);
    }
}
