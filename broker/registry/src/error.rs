//! The errors that this crate returns to its caller. A source of nodes that is down is not an error: its state is in
//! [`Health`](crate::Health).

use thiserror::Error;

/// Error of a call of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// An address is invalid.
    #[error("{text:?} is not {wanted}: {reason}")]
    Address {
        /// The given value.
        text: String,
        /// The expected form.
        wanted: &'static str,
        /// The error, in most cases with what to write instead.
        reason: String,
    },
    /// A setting has an invalid value.
    #[error("setting {name} = {value:?} is invalid: {reason}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The given value.
        value: String,
        /// The error, in most cases with what to write instead.
        reason: String,
    },
    /// [`watch()`](crate::watch()) was called outside of a tokio runtime.
    #[error(
        "the registry must be started within a tokio runtime; call it from async code or enter a runtime first"
    )]
    NoRuntime,
    /// The thread of the ZooKeeper session could not be started.
    #[error(
        "cannot start the thread of the ZooKeeper session: {reason}; check the limits on threads and memory"
    )]
    Thread {
        /// Error of the system.
        reason: String,
    },
    /// The queue of the registry is full.
    #[error("the queue of the registry is full with {queued_max} commands; retry")]
    Busy {
        /// Length of the queue.
        queued_max: usize,
    },
    /// The registry was closed.
    #[error("the registry is closed; start a new one")]
    Closed,
}

impl RegistryError {
    /// Returns the stable name of the error, for metric labels and logs.
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
