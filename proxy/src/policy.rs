//! What a session is allowed and how it behaves, as plain values: the part of the settings that the state machine reads.

use std::time::Duration;

use standin_wire::Pattern;

use crate::settings::{InDoubt, Place, Settings, SettingsError};

/// The limits and times of one session. Names and meanings as in `deploy/proxy.toml`.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What happens to publishes in doubt whose subject no pattern names.
    pub in_doubt: InDoubt,
    /// Exceptions by subject; the first that matches counts.
    pub in_doubt_subjects: Vec<(Pattern, InDoubt)>,
    /// A PING of the sidecar's own follows at the latest after so many bytes of unconfirmed publishes.
    pub confirm_bytes: u64,
    /// … and after so long.
    pub confirm_interval: Duration,
    /// Most bytes of publishes kept for being sent again; when full, nothing is sent until a PONG confirms some.
    pub in_doubt_bytes_max: usize,
    /// How much of the component's stream is kept while no node takes it, in bytes.
    pub buffer_bytes: usize,
    /// How long a component is kept without any node; zero: until every known node was dialled once in vain.
    pub outage: Duration,
    /// How long after an outage of all nodes held publishes wait for subscribers behind other sidecars.
    pub settle: Duration,
    /// How long a new component waits for a node's own INFO before it is given the last known one.
    pub info_wait: Duration,
    /// How much is kept for a component that does not read, in bytes; then the node is not read either.
    pub component_pending_bytes_max: usize,
    /// A component that takes no byte for so long, with bytes waiting, is closed.
    pub component_stall: Duration,
    /// How often a silent component is sent a PING.
    pub ping_interval: Duration,
    /// How many PINGs may stay unanswered before the component is closed.
    pub ping_max: u32,
    /// Most live subscriptions of one component; 0: no limit.
    pub subscriptions_max: usize,
    /// A node that was silent for so long is sent a PING.
    pub probe_interval: Duration,
    /// A node that stays silent for so long after that is given up.
    pub probe_timeout: Duration,
    /// How long a node may take from the journal's replay to its PONG.
    pub handshake_timeout: Duration,
    /// Longest control line taken from the component, in bytes.
    pub control_line_bytes_max: usize,
}

impl Policy {
    /// The part of `settings` that sessions read.
    ///
    /// # Errors
    /// [`SettingsError`] when a subject pattern is none; settings that were loaded have been checked for it.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let (publish, session) = (&settings.publish, &settings.session);
        Ok(Self {
            in_doubt: publish.in_doubt,
            in_doubt_subjects: patterns(settings)?,
            confirm_bytes: publish.confirm_bytes as u64,
            confirm_interval: publish.confirm_interval_ms.duration(),
            in_doubt_bytes_max: publish.in_doubt_bytes_max,
            buffer_bytes: session.buffer_bytes,
            outage: session.outage_secs.duration(),
            settle: session.settle_ms.duration(),
            info_wait: session.info_wait_ms.duration(),
            component_pending_bytes_max: session.component_pending_bytes_max,
            component_stall: session.component_stall_secs.duration(),
            ping_interval: session.ping_interval_secs.duration(),
            ping_max: session.ping_max,
            subscriptions_max: session.subscriptions_max,
            probe_interval: settings.health.probe_interval_ms.duration(),
            probe_timeout: settings.health.probe_timeout_ms.duration(),
            handshake_timeout: settings.dial.handshake_timeout_ms.duration(),
            control_line_bytes_max: session.control_line_bytes_max,
        })
    }

    /// The policy for a publish to `subject`.
    #[must_use]
    pub fn in_doubt_for(&self, subject: &[u8]) -> InDoubt {
        let named = self
            .in_doubt_subjects
            .iter()
            .find(|(pattern, _)| pattern.matches(subject));
        named.map_or(self.in_doubt, |(_, in_doubt)| *in_doubt)
    }

    /// Whether any publish may have to be sent again, so that publishes must be looked at one by one.
    #[must_use]
    pub fn may_resend(&self) -> bool {
        self.in_doubt == InDoubt::Resend
            || self
                .in_doubt_subjects
                .iter()
                .any(|(_, in_doubt)| *in_doubt == InDoubt::Resend)
    }
}

fn patterns(settings: &Settings) -> Result<Vec<(Pattern, InDoubt)>, SettingsError> {
    let named = settings.publish.subject.iter();
    named
        .map(|named| {
            let pattern = Pattern::new(&named.pattern).map_err(|error| SettingsError::Conflict {
                place: Place::Default,
                rule: format!("publish.subject: {error}"),
            })?;
            Ok((pattern, named.in_doubt))
        })
        .collect()
}
