//! The id and password of a ZooKeeper session. With both, another connection can resume the session, at the same server
//! or at another.
//!
//! The client library sends them only when it reconnects by itself, and it then restores neither watches nor credentials. So
//! each connection has a new client of the library, which requests a new session. `relay.rs` puts the id and password into this
//! request, so that the client gets the existing session, and reads them from the server's answer.

use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Size limit of the messages that open a connection. Those of ZooKeeper have 45 and 37 bytes.
const MESSAGE_BYTES_MAX: usize = 1_024;
const PASSWORD_BYTES: usize = 16;
/// Size of the length field at the beginning of each message.
const LENGTH_BYTES: usize = 4;
/// Offset of the session in a request: after the protocol version (4), the last zxid seen (8) and the timeout (4).
const REQUEST_SESSION_AT: usize = LENGTH_BYTES + 16;
/// Offset of the timeout in an answer: after the protocol version.
const ANSWER_TIMEOUT_AT: usize = LENGTH_BYTES + 4;
const ANSWER_SESSION_AT: usize = ANSWER_TIMEOUT_AT + 4;

/// The id and password with which a connection resumes a session.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SessionKey {
    /// Id of the session, which is the owner of its ephemeral znodes.
    pub(crate) session: i64,
    password: [u8; PASSWORD_BYTES],
}

impl SessionKey {
    /// Changes a request for a new session into one for this session. Returns `None` if `request` is not a request
    /// for a new session.
    pub(crate) fn write_into(&self, request: &mut [u8]) -> Option<()> {
        let at = session_at(request, REQUEST_SESSION_AT)?;
        let (session, password) = request[at].split_at_mut(8);
        session.copy_from_slice(&self.session.to_be_bytes());
        password[LENGTH_BYTES..].copy_from_slice(&self.password);
        Some(())
    }
}

/// Answer of a server to the request for a session.
pub(crate) enum SessionAnswer {
    /// The session exists. It is the requested one, or a new one.
    Granted(SessionKey),
    /// The server no longer knows the requested session. No ephemeral znode of it exists, and the connection cannot be used.
    Expired,
}

impl SessionAnswer {
    /// Parses an answer. Returns `None` if it is not an answer of a ZooKeeper server.
    pub(crate) fn parse(answer: &[u8]) -> Option<Self> {
        if answer.get(ANSWER_TIMEOUT_AT..ANSWER_SESSION_AT)? == [0; 4] {
            return Some(Self::Expired);
        }
        let (session, password) = answer[session_at(answer, ANSWER_SESSION_AT)?].split_at(8);
        Some(Self::Granted(SessionKey {
            session: i64::from_be_bytes(session.try_into().ok()?),
            password: password[LENGTH_BYTES..].try_into().ok()?,
        }))
    }
}

/// Returns the range of the session in a message: its id, the length of its password, and the password. Both messages have
/// these fields in this order, at the offset `start`.
fn session_at(message: &[u8], start: usize) -> Option<Range<usize>> {
    let at = start..start + 8 + LENGTH_BYTES + PASSWORD_BYTES;
    let length = &message.get(at.clone())?[8..8 + LENGTH_BYTES];
    (*length == (PASSWORD_BYTES as u32).to_be_bytes()).then_some(at)
}

/// Reads one complete message, including its length. Returns `None` if the connection ends too early, or the message
/// is too long.
pub(crate) async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut message = vec![0; LENGTH_BYTES];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return None;
    }
    message.resize(LENGTH_BYTES + length, 0);
    from.read_exact(&mut message[LENGTH_BYTES..]).await.ok()?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request for a new session with a timeout of 6 s, as the library writes it.
    fn request() -> Vec<u8> {
        let mut request = vec![0, 0, 0, 45];
        request.extend([0; 12]);
        request.extend(6_000_u32.to_be_bytes());
        request.extend([0; 8]);
        request.extend(16_u32.to_be_bytes());
        request.extend([0; 17]);
        request
    }

    fn answer(timeout_ms: u32, session: i64, password: u8) -> Vec<u8> {
        let mut answer = vec![0, 0, 0, 37, 0, 0, 0, 0];
        answer.extend(timeout_ms.to_be_bytes());
        answer.extend(session.to_be_bytes());
        answer.extend(16_u32.to_be_bytes());
        answer.extend([password; 16]);
        answer.push(0);
        answer
    }

    #[test]
    fn the_session_of_an_answer_is_requested_by_the_next_connection() {
        let answer = answer(6_000, 0x0123_4567_89ab_cdef, 7);
        let Some(SessionAnswer::Granted(key)) = SessionAnswer::parse(&answer) else {
            panic!("the session was not granted")
        };
        let mut resumed = request();
        assert_eq!(key.write_into(&mut resumed), Some(()));
        assert_eq!(&resumed[..20], &request()[..20]);
        assert_eq!(resumed[20..28], 0x0123_4567_89ab_cdef_i64.to_be_bytes());
        assert_eq!(resumed[28..48], [&[0, 0, 0, 16][..], &[7; 16]].concat());
        assert_eq!(resumed[48..], [0]);
    }

    #[test]
    fn an_expired_session_differs_from_an_invalid_answer() {
        assert!(matches!(
            SessionAnswer::parse(&answer(0, 0, 0)),
            Some(SessionAnswer::Expired)
        ));
        let whole = answer(6_000, 5, 7);
        for end in 0..whole.len() - 1 {
            assert!(SessionAnswer::parse(&whole[..end]).is_none(), "{end}");
        }
        let mut short_password = whole;
        short_password[23] = 8;
        assert!(SessionAnswer::parse(&short_password).is_none());
    }

    #[tokio::test]
    async fn an_incomplete_or_oversized_message_is_not_read() {
        let whole = request();
        let with_more = [&whole[..], b"more"].concat();
        assert_eq!(read_message(&mut &with_more[..]).await, Some(whole.clone()));
        assert_eq!(read_message(&mut &whole[..whole.len() - 1]).await, None);
        assert_eq!(read_message(&mut &b"HTTP/1.1 400 Bad Request"[..]).await, None);
    }
}
