//! The errors of this crate's seam. Only what the caller can mend is an error; a source that is down is a
//! state, told by [`Health`](crate::Health).

use thiserror::Error;

/// Why a registry could not be started, changed or told something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// An address that cannot be read as one.
    #[error("cannot read {text:?} as {wanted}: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// What it should have been.
        wanted: &'static str,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// A setting whose value cannot work.
    #[error("setting {name} = {value:?} cannot work: {reason}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// [`watch()`](crate::watch()) or [`announce()`](crate::announce()) was called outside of a tokio runtime.
    #[error(
        "the registry was started outside of a tokio runtime; call it from async code or enter a runtime first"
    )]
    NoRuntime,
    /// The thread of the ZooKeeper session could not be started.
    #[error(
        "cannot start the thread of the ZooKeeper session: {reason}; look at the limits on threads and memory"
    )]
    Thread {
        /// What the system said.
        reason: String,
    },
    /// The registry is busy with earlier orders.
    #[error("the registry has {queued_max} orders waiting and takes no more; try again")]
    Busy {
        /// How many may wait.
        queued_max: usize,
    },
    /// The registry was closed.
    #[error("the registry was closed; start a new one")]
    Closed,
}

impl RegistryError {
    /// A short stable name, for metric labels and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address { .. } => "address",
            Self::Setting { .. } => "setting",
            Self::NoRuntime => "no_runtime",
            Self::Thread { .. } => "thread",
            Self::Busy { .. } => "busy",
            Self::Closed => "closed",
        }
    }

    pub(crate) fn address(text: &str, wanted: &'static str, reason: impl Into<String>) -> Self {
        Self::Address {
            text: text.to_owned(),
            wanted,
            reason: reason.into(),
        }
    }

    pub(crate) fn setting(name: &'static str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Setting {
            name,
            value: value.to_string(),
            reason: reason.into(),
        }
    }
}
