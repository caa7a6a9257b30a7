//! The log lines for clients that are closed because of their behaviour. The log limits the number of lines per second.

use tracing::warn;

use crate::client_info::ClientInfo;
use crate::close_reason::CloseReason;
use crate::policy::Policy;

/// Maximum number of characters of a client's name or user in the log.
const NAME_CHARS_MAX: usize = 64;

/// Logs that the client of `client_info` is about to be closed for `reason`.
pub(crate) fn closed(reason: CloseReason, client_info: &ClientInfo, policy: &Policy) {
    if !is_logged(reason) {
        return;
    }
    let (client, peer) = (client_info.outbox.id, client_info.peer);
    let labels = client_info.labels();
    let name = shown(labels.and_then(|labels| labels.name.as_deref()));
    match reason {
        CloseReason::SlowConsumerPending | CloseReason::SlowConsumerDeadline => {
            let (key, limit) = match reason {
                CloseReason::SlowConsumerPending => ("limits.max_pending", policy.pending_bytes_max as u128),
                _ => ("limits.write_deadline_ms", policy.write_deadline.as_millis()),
            };
            let pending_bytes = client_info.outbox.unsent_bytes();
            warn!(client, %peer, name, pending_bytes, key, limit, "slow consumer closed");
        }
        CloseReason::AuthorizationViolation => {
            let user = shown(labels.and_then(|labels| labels.user.as_deref()));
            warn!(client, %peer, name, user, "login failed");
        }
        CloseReason::AuthenticationTimeout => {
            let timeout_ms = policy.auth_timeout.as_millis();
            warn!(client, %peer, timeout_ms, "login timed out");
        }
        _ => {
            let error = reason.text().unwrap_or_default();
            warn!(client, %peer, name, error, "protocol violation");
        }
    }
}

/// Returns whether the close of a client for this reason is logged for the operator.
const fn is_logged(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::SlowConsumerPending
            | CloseReason::SlowConsumerDeadline
            | CloseReason::AuthorizationViolation
            | CloseReason::AuthenticationTimeout
            | CloseReason::Protocol(_)
            | CloseReason::InvalidProtocol
            | CloseReason::NoRespondersWithoutHeaders
            | CloseReason::HeadersNotSupported
    )
}

/// Returns a name or user that a client sent, shortened and without control characters, for the log.
fn shown(name: Option<&str>) -> Option<String> {
    let plain = |character: char| if character.is_control() { '?' } else { character };
    name.map(|name| name.chars().take(NAME_CHARS_MAX).map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shortened_and_has_no_line_ends() {
        assert_eq!(shown(Some("a\r\nb")).unwrap(), "a??b");
        assert_eq!(shown(Some(&"x".repeat(1000))).unwrap().len(), NAME_CHARS_MAX);
        assert_eq!(shown(None), None);
    }
}
