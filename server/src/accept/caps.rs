//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections. Cloning shares the counts.
#[derive(Debug, Clone)]
pub(super) struct Caps {
    total_max: u32,
    address_max: u32,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    total: u32,
    addresses: HashMap<IpAddr, u32>,
}

/// Which cap was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Total,
    Address,
}

/// The right to one connection; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Permit {
    caps: Caps,
    address: IpAddr,
}

impl Caps {
    pub(super) fn new(total_max: u32, address_max: u32) -> Self {
        Self { total_max, address_max, counts: Arc::default() }
    }

    pub(super) fn take(&self, address: IpAddr) -> Result<Permit, Refusal> {
        // An IPv4 peer looks different on an IPv6 listener and is the same machine.
        let address = address.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.total_max {
            return Err(Refusal::Total);
        }
        let of_address = counts.addresses.entry(address).or_default();
        if *of_address >= self.address_max {
            return Err(Refusal::Address);
        }
        *of_address += 1;
        counts.total += 1;
        Ok(Permit { caps: self.clone(), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.caps.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        let of_address = counts.addresses.get_mut(&self.address).expect("a permit is counted");
        *of_address -= 1;
        if *of_address == 0 {
            counts.addresses.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_gives_its_place_back() {
        let caps = Caps::new(3, 2);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let first = caps.take(a).unwrap();
        let _second = caps.take(mapped).unwrap();
        assert_eq!(caps.take(a).unwrap_err(), Refusal::Address);
        let _third = caps.take(b).unwrap();
        assert_eq!(caps.take(b).unwrap_err(), Refusal::Total);
        drop(first);
        caps.take(a).unwrap();
        assert_eq!(caps.counts.lock().unwrap().addresses.len(), 2);
    }
}
