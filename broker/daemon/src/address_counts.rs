//! Connections by the address of their peer: how many are open, and how many began in the present second.
//!
//! A host with IPv6 can use all 2^64 addresses of its network (a /64), so all addresses of a /64 count as one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Size of the table at which addresses without connections are removed for the first time.
const SWEEP_MIN: usize = 1024;

/// Period of the limit on new connections.
const SECOND: Duration = Duration::from_secs(1);

/// Connections by the address of their peer.
#[derive(Debug, Default)]
pub(crate) struct AddressCounts {
    by_address: HashMap<IpAddr, Counts>,
    /// Size of the table at which addresses without connections are removed next.
    sweep_at: usize,
}

/// Connections from one address.
#[derive(Debug)]
struct Counts {
    open: usize,
    half_open: usize,
    second_began: Instant,
    begun: usize,
}

impl Counts {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.second_began) >= SECOND
    }
}

impl AddressCounts {
    /// Returns the number of open connections from `ip`, and the number of connections that it began in the present second. Connections
    /// that were refused are among the latter.
    pub(crate) fn of(&self, ip: IpAddr, now: Instant) -> (usize, usize) {
        match self.by_address.get(&network(ip)) {
            Some(counts) if counts.is_over(now) => (counts.open, 0),
            Some(counts) => (counts.open, counts.begun),
            None => (0, 0),
        }
    }

    /// Counts a connection that begins now. It is not open yet.
    pub(crate) fn began(&mut self, ip: IpAddr, now: Instant) {
        if self.by_address.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.by_address
                .retain(|_, counts| counts.open > 0 || !counts.is_over(now));
            self.sweep_at = self.by_address.len() * 2;
        }
        let counts = self.by_address.entry(network(ip)).or_insert(Counts {
            open: 0,
            half_open: 0,
            second_began: now,
            begun: 0,
        });
        if counts.is_over(now) {
            (counts.second_began, counts.begun) = (now, 0);
        }
        counts.begun += 1;
    }

    /// Counts a connection as open and as half-open. It began in the process that this one replaced.
    pub(crate) fn restore(&mut self, ip: IpAddr) {
        let counts = self.by_address.entry(network(ip)).or_insert(Counts {
            open: 0,
            half_open: 0,
            second_began: Instant::now(),
            begun: 0,
        });
        counts.open += 1;
        counts.half_open += 1;
    }

    /// Counts the connection that began last as open, and as half-open.
    pub(crate) fn opened(&mut self, ip: IpAddr) {
        if let Some(counts) = self.by_address.get_mut(&network(ip)) {
            counts.open += 1;
            counts.half_open += 1;
        }
    }

    /// Counts a connection as no longer half-open.
    pub(crate) fn half_open_ended(&mut self, ip: IpAddr) {
        if let Some(counts) = self.by_address.get_mut(&network(ip)) {
            counts.half_open = counts.half_open.saturating_sub(1);
        }
    }

    /// Returns the number of half-open connections from `ip`.
    pub(crate) fn half_open(&self, ip: IpAddr) -> usize {
        let counts = self.by_address.get(&network(ip));
        counts.map_or(0, |counts| counts.half_open)
    }

    /// Counts a connection as closed.
    pub(crate) fn closed(&mut self, ip: IpAddr) {
        if let Some(counts) = self.by_address.get_mut(&network(ip)) {
            counts.open = counts.open.saturating_sub(1);
        }
    }
}

/// Returns the address under which connections from `ip` are counted.
fn network(ip: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            Ipv6Addr::from_bits(ip.to_bits() >> HOST_BITS << HOST_BITS).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_each_ipv4_address_by_itself() {
        let (mut counts, now) = (AddressCounts::default(), Instant::now());
        for address in [
            "2001:db8::1",
            "2001:db8::2:3:4:5",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "10.0.0.2",
        ] {
            counts.began(ip(address), now);
            counts.opened(ip(address));
        }
        let of = |address| counts.of(ip(address), now);
        assert_eq!(of("2001:db8::9"), (2, 2));
        assert_eq!(of("2001:db8:0:1::1"), (0, 0));
        assert_eq!((of("10.0.0.1"), of("10.0.0.2")), ((2, 2), (1, 1)));
    }

    #[test]
    fn addresses_are_forgotten_once_they_have_no_connections() {
        let (mut counts, now) = (AddressCounts::default(), Instant::now());
        let flood = |from: u32| (from..from + 100_000).map(|number| IpAddr::from(number.to_be_bytes()));
        for (round, from) in (0..5).map(|round| (round, round * 100_000)) {
            let now = now + SECOND * round;
            for address in flood(from) {
                counts.began(address, now);
                counts.opened(address);
                counts.closed(address);
            }
        }
        assert!(
            counts.by_address.len() <= 2 * 100_000 + SWEEP_MIN,
            "{}",
            counts.by_address.len()
        );
    }
}
