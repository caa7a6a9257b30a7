//! Times as the settings give them: whole numbers whose unit is in the key's name, and in the type.

use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($name:ident, $what:literal, $from:path) => {
        #[doc = concat!("A time in ", $what, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The same time for the clock.
            #[must_use]
            pub const fn duration(self) -> Duration {
                $from(self.0)
            }
        }
    };
}

unit!(Secs, "seconds", Duration::from_secs);
unit!(Millis, "milliseconds", Duration::from_millis);
unit!(Micros, "microseconds", Duration::from_micros);
