//! The limits and times of one session: the part of the settings that the session's state machine reads.

use std::time::Duration;

use standin_daemon::certificate_watch::expiries;
use standin_wire::Pattern;

use crate::listener_policy::ListenerPolicy;
use crate::settings::{InDoubt, Place, Settings, SettingsError};

/// Limits and times of one session. Each field is named after its key in `deploy/proxy.toml`, which describes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) in_doubt: InDoubt,
    /// Policies by subject. The first match applies.
    pub(crate) in_doubt_subjects: Vec<(Pattern, InDoubt)>,
    pub(crate) confirm_bytes: u64,
    pub(crate) confirm_interval: Duration,
    pub(crate) in_doubt_bytes_max: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) buffers_total_bytes_max: usize,
    pub(crate) outage: Duration,
    pub(crate) settle: Duration,
    pub(crate) info_wait: Duration,
    pub(crate) component_pending_bytes_max: usize,
    pub(crate) component_stall: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_max: u32,
    pub(crate) subscriptions_max: usize,
    pub(crate) probe_interval: Duration,
    pub(crate) probe_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) control_line_bytes_max: usize,
    /// What differs between the listeners, in the order of the settings.
    pub(crate) listeners: Vec<ListenerPolicy>,
    /// The doors with a certificate, each with the expiry of its certificate in seconds since 1970.
    pub(crate) certificates: Vec<(String, i64)>,
}

impl Policy {
    /// Returns the part of `settings` that sessions read.
    ///
    /// # Errors
    /// [`SettingsError`] if a subject pattern is not valid. Settings that were loaded have been checked for this.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let (publish, session) = (&settings.publish, &settings.session);
        let listeners = settings.listeners();
        let certificates = expiries(&settings.tls_doors());
        let certificates = certificates.map_err(|error| SettingsError::Unusable {
            section: "tls",
            error: error.to_string(),
        })?;
        Ok(Self {
            in_doubt: publish.in_doubt,
            in_doubt_subjects: patterns(settings)?,
            confirm_bytes: publish.confirm_bytes as u64,
            confirm_interval: publish.confirm_interval_ms.duration(),
            in_doubt_bytes_max: publish.in_doubt_bytes_max,
            buffer_bytes: session.buffer_bytes,
            buffers_total_bytes_max: settings.limits.buffers_total_bytes_max,
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
            listeners: listeners
                .iter()
                .map(ListenerPolicy::new)
                .collect::<Result<_, _>>()?,
            certificates,
        })
    }

    /// Returns the policy for a publish to `subject`.
    pub(crate) fn in_doubt_for(&self, subject: &[u8]) -> InDoubt {
        let named = self
            .in_doubt_subjects
            .iter()
            .find(|(pattern, _)| pattern.matches(subject));
        named.map_or(self.in_doubt, |(_, in_doubt)| *in_doubt)
    }

    /// Returns whether any publish may have to be sent again. If so, the subject of each publish must be matched.
    pub(crate) fn may_resend(&self) -> bool {
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
