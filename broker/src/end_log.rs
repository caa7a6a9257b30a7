//! The lines of the log for clients that are closed because of what they did, or did not do. Any client can cause one, so their number is
//! limited: so many in a while for each reason, and then one that says how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::card::Card;
use crate::closing::{KINDS, Reason};
use crate::policy::Policy;

/// Lines for one reason in one [`WINDOW`].
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// The most of a name that a client gives itself.
const NAME_CHARS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct EndLog(Mutex<[Window; KINDS.len()]>);

impl EndLog {
    /// The client of `card` is about to be closed for this reason.
    pub(crate) fn closed(&self, reason: Reason, card: &Card, policy: &Policy) {
        if !is_told(reason) {
            return;
        }
        let Some(left_out) = self.admit(reason, Instant::now()) else {
            return;
        };
        let (client, peer) = (card.outbox.id, card.peer);
        let labels = card.labels();
        let name = shown(labels.and_then(|labels| labels.name.as_deref()));
        match reason {
            Reason::SlowConsumerPending | Reason::SlowConsumerDeadline => {
                let (key, limit) = match reason {
                    Reason::SlowConsumerPending => ("limits.max_pending", policy.pending_bytes_max as u128),
                    _ => ("limits.write_deadline_ms", policy.write_deadline.as_millis()),
                };
                let pending_bytes = card.outbox.unsent_bytes();
                warn!(client, %peer, name, pending_bytes, key, limit, left_out, "slow consumer closed");
            }
            Reason::AuthorizationViolation => {
                let user = shown(labels.and_then(|labels| labels.user.as_deref()));
                warn!(client, %peer, name, user, left_out, "login failed");
            }
            Reason::AuthenticationTimeout => {
                let timeout_ms = policy.auth_timeout.as_millis();
                warn!(client, %peer, timeout_ms, left_out, "login timed out");
            }
            _ => {
                let error = reason.text().unwrap_or_default();
                warn!(client, %peer, name, error, left_out, "protocol violation");
            }
        }
    }

    /// Whether there is a line for this reason now, and for how many there was none since the last.
    fn admit(&self, reason: Reason, now: Instant) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = &mut windows[reason.kind()];
        let is_over = |began| now.saturating_duration_since(began) >= WINDOW;
        if window.began.is_none_or(is_over) {
            window.began = Some(now);
            window.lines = 0;
        }
        if window.lines >= LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

/// Whether an operator should hear of a client that is closed for this reason.
const fn is_told(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SlowConsumerPending
            | Reason::SlowConsumerDeadline
            | Reason::AuthorizationViolation
            | Reason::AuthenticationTimeout
            | Reason::Protocol(_)
            | Reason::InvalidProtocol
            | Reason::NoRespondersWithoutHeaders
            | Reason::HeadersNotSupported
    )
}

/// A name that a client gave, fit for a line of the log.
fn shown(name: Option<&str>) -> Option<String> {
    let plain = |character: char| if character.is_control() { '?' } else { character };
    name.map(|name| name.chars().take(NAME_CHARS_MAX).map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_in_a_while_for_each_reason_and_then_how_many_were_left_out() {
        let (log, now) = (EndLog::default(), Instant::now());
        let told = (0..1000).filter(|_| log.admit(Reason::AuthorizationViolation, now).is_some());
        assert_eq!(told.count(), LINES_MAX as usize);
        assert_eq!(log.admit(Reason::AuthenticationTimeout, now), Some(0));
        let later = now + WINDOW;
        assert_eq!(log.admit(Reason::AuthorizationViolation, later), Some(990));
        assert_eq!(log.admit(Reason::AuthorizationViolation, later), Some(0));
    }

    #[test]
    fn a_name_is_cut_and_has_no_line_ends() {
        assert_eq!(shown(Some("a\r\nb")).unwrap(), "a??b");
        assert_eq!(shown(Some(&"x".repeat(1000))).unwrap().len(), NAME_CHARS_MAX);
        assert_eq!(shown(None), None);
    }
}
