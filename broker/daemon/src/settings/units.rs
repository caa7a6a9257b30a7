//! Times in settings: whole numbers whose unit is in the name of the key and in the type.

use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($name:ident, $what:literal, $from:path) => {
        #[doc = concat!("A time in ", $what, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the time as a [`Duration`].
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
