//! Admission of connections: the limits that hold before a peer has logged in.
//!
//! An accepted connection is half-open until its peer has logged in. The number of half-open connections is bounded
//! ([`HalfOpen`]), and so is the number of all connections. At both limits an old half-open connection is evicted for a new one.
//! A new connection is refused only if all others are logged in, or if its address has too many.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::address_counts::AddressCounts;
use crate::half_open::HalfOpen;

/// Limits on connections before login. 0 in a limit on addresses: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Connections at the same time, half-open or not.
    pub connections_max: usize,
    /// Half-open connections at the same time.
    pub half_open_max: usize,
    /// Connections from one address at the same time.
    pub address_connections_max: usize,
    /// New connections from one address in a second.
    pub address_connects_per_second_max: usize,
}

/// Reason why a connection is closed before its peer has logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// All connections are in use, and each of them is logged in.
    ConnectionsMax,
    /// Its address has too many connections.
    AddressConnectionsMax,
    /// Its address began too many connections in this second.
    AddressConnectsMax,
    /// It was the oldest half-open connection when a new one needed its place.
    Evicted,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 4] = [
        Self::ConnectionsMax,
        Self::AddressConnectionsMax,
        Self::AddressConnectsMax,
        Self::Evicted,
    ];

    /// Returns the stable name, for logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsMax => "connections_max",
            Self::AddressConnectionsMax => "address_connections_max",
            Self::AddressConnectsMax => "address_connects_per_second_max",
            Self::Evicted => "half_open_evicted",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Number of oldest half-open connections among which the one to be evicted is chosen: the one whose address has the most. So a peer that
/// is slow to log in is not evicted for a flood from other addresses.
const EVICTION_CHOICE: usize = 16;

/// Admission of the connections of one program. `H` is what the program needs to close a half-open connection.
#[derive(Debug)]
pub struct Admission<H> {
    state: Mutex<State<H>>,
    refused: [AtomicU64; Refusal::ALL.len()],
}

#[derive(Debug)]
struct State<H> {
    half_open: HalfOpen<(IpAddr, H)>,
    addresses: AddressCounts,
}

impl<H> Default for Admission<H> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                half_open: HalfOpen::default(),
                addresses: AddressCounts::default(),
            }),
            refused: Default::default(),
        }
    }
}

impl<H> Admission<H> {
    /// Admits connection `number` from `peer` as half-open; later connections have higher numbers. `open` connections are open besides
    /// it. Returns the half-open connection that the caller must evict for it, if any. [`closed`](Self::closed) must be called at
    /// its end.
    ///
    /// # Errors
    /// The reason for which the caller must close the new connection.
    pub fn admit(
        &self,
        number: u64,
        peer: IpAddr,
        connection: H,
        open: usize,
        limits: AdmissionLimits,
    ) -> Result<Option<H>, Refusal> {
        let admitted = self
            .lock()
            .admit(number, peer, connection, open, limits, Instant::now());
        match &admitted {
            Err(refusal) => self.count(*refusal),
            Ok(Some(_)) => self.count(Refusal::Evicted),
            Ok(None) => {}
        }
        admitted
    }

    /// Counts a connection of the process that this one replaced, whatever the limits are now. `half_open` is set if its peer has not logged
    /// in.
    pub fn restore(&self, number: u64, peer: IpAddr, half_open: Option<H>) {
        let mut state = self.lock();
        state.addresses.restore(peer);
        match half_open {
            Some(connection) => drop(state.half_open.add(number, (peer, connection), usize::MAX)),
            None => state.addresses.half_open_ended(peer),
        }
    }

    /// Records that the peer of connection `number` has logged in, so that the connection is not evicted.
    pub fn logged_in(&self, number: u64) {
        self.lock().end_half_open(number);
    }

    /// Records the end of connection `number` from `peer`.
    pub fn closed(&self, number: u64, peer: IpAddr) {
        let mut state = self.lock();
        state.end_half_open(number);
        state.addresses.closed(peer);
    }

    /// Changes what the program keeps for half-open connection `number`. Returns `false` if it is not half-open: it was evicted, has
    /// logged in, or has ended.
    pub fn update(&self, number: u64, change: impl FnOnce(&mut H)) -> bool {
        let mut state = self.lock();
        let connection = state.half_open.get_mut(number);
        connection.map(|(_, connection)| change(connection)).is_some()
    }

    /// Returns the number of half-open connections.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.lock().half_open.len()
    }

    /// Returns the number of connections that were closed before login, by reason.
    #[must_use]
    pub fn refused(&self) -> [(Refusal, u64); Refusal::ALL.len()] {
        Refusal::ALL.map(|refusal| (refusal, self.refused[refusal as usize].load(Relaxed)))
    }

    fn count(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H> State<H> {
    fn admit(
        &mut self,
        number: u64,
        peer: IpAddr,
        connection: H,
        open: usize,
        limits: AdmissionLimits,
        now: Instant,
    ) -> Result<Option<H>, Refusal> {
        let exceeds = |count: usize, max: usize| max > 0 && count >= max;
        let (open_here, begun_here) = self.addresses.of(peer, now);
        self.addresses.began(peer, now);
        if exceeds(begun_here, limits.address_connects_per_second_max) {
            return Err(Refusal::AddressConnectsMax);
        }
        if exceeds(open_here, limits.address_connections_max) {
            return Err(Refusal::AddressConnectionsMax);
        }
        let is_full = open >= limits.connections_max;
        if is_full && self.half_open.is_empty() {
            return Err(Refusal::ConnectionsMax);
        }
        self.addresses.opened(peer);
        let half_open_max = if is_full {
            self.half_open.len()
        } else {
            limits.half_open_max
        };
        let evicted = if self.half_open.len() < half_open_max {
            None
        } else {
            let is_crowded = |(peer, _): &(IpAddr, H)| self.addresses.half_open(*peer);
            self.half_open.pop_among_oldest(EVICTION_CHOICE, is_crowded)
        };
        self.half_open.add(number, (peer, connection), usize::MAX);
        Ok(evicted.map(|(peer, connection)| {
            self.addresses.half_open_ended(peer);
            connection
        }))
    }

    fn end_half_open(&mut self, number: u64) {
        if let Some((peer, _)) = self.half_open.remove(number) {
            self.addresses.half_open_ended(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LIMITS: AdmissionLimits = AdmissionLimits {
        connections_max: 100,
        half_open_max: 3,
        address_connections_max: 0,
        address_connects_per_second_max: 0,
    };

    #[test]
    fn the_oldest_half_open_connection_makes_room_and_those_that_logged_in_stay() {
        let admission = Admission::default();
        let admit = |number, open| admission.admit(number, PEER, number, open, LIMITS);
        assert!((1..=3).all(|number| admit(number, 0) == Ok(None)));
        admission.logged_in(1);
        assert_eq!(admit(4, 3), Ok(None));
        assert_eq!(admit(5, 4), Ok(Some(2)));
        admission.closed(3, PEER);
        assert_eq!(admit(6, 4), Ok(None));
        // At the limit on all connections, a half-open one makes room too, as long as there is one.
        assert_eq!(admit(7, 100), Ok(Some(4)));
        (5..=7).for_each(|number| admission.logged_in(number));
        assert_eq!(admit(8, 100), Err(Refusal::ConnectionsMax));
        assert_eq!(admission.refused().map(|(_, count)| count), [1, 0, 0, 2]);
    }

    #[test]
    fn a_slow_peer_is_not_evicted_for_a_flood_from_another_address() {
        let admission = Admission::default();
        let slow = IpAddr::from([127, 0, 0, 2]);
        assert_eq!(admission.admit(1, slow, 1, 0, LIMITS), Ok(None));
        let evicted: Vec<_> = (2..=6)
            .map(|number| admission.admit(number, PEER, number, 0, LIMITS))
            .collect();
        assert_eq!(
            evicted,
            [Ok(None), Ok(None), Ok(Some(2)), Ok(Some(3)), Ok(Some(4))]
        );
        admission.logged_in(5);
        admission.logged_in(6);
        assert_eq!(admission.half_open(), 1);
    }

    #[test]
    fn an_address_has_limits_of_its_own() {
        let other = IpAddr::from([127, 0, 0, 2]);
        let limits = AdmissionLimits {
            half_open_max: 100,
            address_connections_max: 2,
            address_connects_per_second_max: 4,
            ..LIMITS
        };
        let mut state = State {
            half_open: HalfOpen::default(),
            addresses: AddressCounts::default(),
        };
        let (mut number, now) = (0, Instant::now());
        let mut admit = |state: &mut State<()>, peer, now| {
            number += 1;
            state.admit(number, peer, (), 0, limits, now)
        };
        for expected in [Ok(None), Ok(None), Err(Refusal::AddressConnectionsMax)] {
            assert_eq!(admit(&mut state, PEER, now), expected);
        }
        state.addresses.closed(PEER);
        assert_eq!(admit(&mut state, PEER, now), Ok(None));
        state.addresses.closed(PEER);
        assert_eq!(admit(&mut state, PEER, now), Err(Refusal::AddressConnectsMax));
        assert_eq!(admit(&mut state, other, now), Ok(None));
        assert_eq!(admit(&mut state, PEER, now + Duration::from_secs(1)), Ok(None));
    }
}
