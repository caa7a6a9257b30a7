//! Forms of fields in the state of a session for which `serde` has none.
//!
//! Fields that mostly have their default value are left out then ([`is_default`]): most of the time in an upgrade is spent with the names
//! and values of fields (`tests/bench moves --only upgrade`).

/// Returns whether a field is left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A time. `Instant` is the monotonic clock of the system (`CLOCK_MONOTONIC`), which goes on when a process replaces itself. The form is
/// its value in nanoseconds.
pub(crate) mod time {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use rustix::time::{ClockId, clock_gettime};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(nanos_of(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        u64::deserialize(deserializer).map(at)
    }

    /// One time in both forms.
    fn anchor() -> (Instant, u64) {
        static ANCHOR: OnceLock<(Instant, u64)> = OnceLock::new();
        *ANCHOR.get_or_init(|| {
            let (now, clock) = (Instant::now(), clock_gettime(ClockId::Monotonic));
            (now, clock.tv_sec as u64 * 1_000_000_000 + clock.tv_nsec as u64)
        })
    }

    pub(crate) fn nanos_of(time: Instant) -> u64 {
        let (now, nanos) = anchor();
        let apart = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match time.checked_duration_since(now) {
            Some(later) => nanos.saturating_add(apart(later)),
            None => nanos.saturating_sub(apart(now - time)),
        }
    }

    pub(crate) fn at(nanos: u64) -> Instant {
        let (now, anchor) = anchor();
        let apart = Duration::from_nanos(nanos.abs_diff(anchor));
        let time = if nanos >= anchor {
            now.checked_add(apart)
        } else {
            now.checked_sub(apart)
        };
        time.unwrap_or(now)
    }
}

/// A time that may be missing.
pub(crate) mod optional_time {
    use std::time::Instant;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::time;

    pub(crate) fn serialize<S: Serializer>(time: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(time::nanos_of).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Instant>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(time::at))
    }
}

/// A fixed name. As another type, so that `serde` does not want to borrow it from the state.
pub(crate) type Name = &'static str;

/// A fixed name, such as that of a kind of error. There are few of them, so the memory for those that were read is never freed.
pub(crate) mod name {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use serde::{Deserialize, Deserializer, Serializer};

    static READ: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    pub(crate) fn serialize<S: Serializer>(name: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
        let name = String::deserialize(deserializer)?;
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(name.as_str()) {
            return Ok(known);
        }
        let name: &'static str = name.leak();
        read.insert(name);
        Ok(name)
    }
}

/// A scanner of a component's frames. Its form is its limits: what it remembers only saves time.
pub(crate) mod scanner {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use standin_wire::ClientScanner;
    use standin_wire::limits::FrameLimits;

    pub(crate) fn serialize<S: Serializer>(
        scanner: &ClientScanner,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        scanner.limits().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClientScanner, D::Error> {
        FrameLimits::deserialize(deserializer).map(ClientScanner::new)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_time_keeps_its_distance_to_now() {
        let now = Instant::now();
        let near = Duration::from_secs(3_600);
        for time in [now, now + near, now.checked_sub(near).unwrap_or(now)] {
            assert_eq!(time::at(time::nanos_of(time)), time);
        }
        assert!(time::at(u64::MAX) >= now && time::at(0) <= now);
    }
}
