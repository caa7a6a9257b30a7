//! The id and password of a ZooKeeper session. With both, another connection resumes the session, at the same server
//! or at another.
//!
//! The client library shows them only on its own second connection, and then restores neither watches nor auth. So
//! `gate.rs` reads and writes them in the two messages that open a connection. A new client requests a new session
//! and gets the existing one.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Size limit of the messages that open a connection; those of ZooKeeper have 45 and 37 bytes.
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
pub(crate) struct Ticket {
    /// Id of the session, which is the owner of its ephemeral znodes.
    pub(crate) session: i64,
    password: [u8; PASSWORD_BYTES],
}

impl Ticket {
    /// Changes a request for a new session into one for this session. Returns `None` if `request` is not a request
    /// for a new session.
    pub(crate) fn write_into(&self, request: &mut [u8]) -> Option<()> {
        let fields = fields_mut(request, REQUEST_SESSION_AT)?;
        let (session, password) = fields.split_at_mut(8);
        session.copy_from_slice(&self.session.to_be_bytes());
        password[LENGTH_BYTES..].copy_from_slice(&self.password);
        Some(())
    }

    /// Parses the server's answer.
    pub(crate) fn read(answer: &[u8]) -> Answer {
        let mut answer = answer.to_vec();
        let Some(timeout) = answer.get(ANSWER_TIMEOUT_AT..ANSWER_SESSION_AT) else {
            return Answer::Unreadable;
        };
        if timeout == [0; 4] {
            return Answer::Expired;
        }
        let Some(fields) = fields_mut(&mut answer, ANSWER_SESSION_AT) else {
            return Answer::Unreadable;
        };
        let (mut session, mut password) = ([0; 8], [0; PASSWORD_BYTES]);
        session.copy_from_slice(&fields[..8]);
        password.copy_from_slice(&fields[8 + LENGTH_BYTES..]);
        let session = i64::from_be_bytes(session);
        Answer::Session(Self { session, password })
    }
}

/// The server's answer to a request for a session.
pub(crate) enum Answer {
    Session(Ticket),
    /// The server no longer knows the session. No ephemeral znode of it exists.
    Expired,
    /// The answer is not from a ZooKeeper server.
    Unreadable,
}

/// Returns the session's id and its password with the length before it. Both messages have these fields in this
/// order.
fn fields_mut(message: &mut [u8], at: usize) -> Option<&mut [u8]> {
    let fields = message.get_mut(at..at + 8 + LENGTH_BYTES + PASSWORD_BYTES)?;
    (fields[8..8 + LENGTH_BYTES] == (PASSWORD_BYTES as u32).to_be_bytes()).then_some(fields)
}

/// Reads one complete message, including its length. Returns `None` if the connection ends before, or the message is
/// too long.
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
    fn what_one_answer_gives_is_what_the_next_request_asks_for() {
        let Answer::Session(ticket) = Ticket::read(&answer(6_000, 0x0123_4567_89ab_cdef, 7)) else {
            panic!("a session was given")
        };
        let mut asks = request();
        assert_eq!(ticket.write_into(&mut asks), Some(()));
        assert_eq!(&asks[..20], &request()[..20]);
        assert_eq!(asks[20..28], 0x0123_4567_89ab_cdef_i64.to_be_bytes());
        assert_eq!(asks[28..48], [&[0, 0, 0, 16][..], &[7; 16]].concat());
        assert_eq!(asks[48..], [0]);
    }

    #[test]
    fn an_expired_session_and_what_is_no_answer_are_told_apart() {
        assert!(matches!(Ticket::read(&answer(0, 0, 0)), Answer::Expired));
        let whole = answer(6_000, 5, 7);
        for end in 0..whole.len() - 1 {
            assert!(matches!(Ticket::read(&whole[..end]), Answer::Unreadable), "{end}");
        }
        let mut other_password = whole;
        other_password[23] = 8;
        assert!(matches!(Ticket::read(&other_password), Answer::Unreadable));
    }

    #[tokio::test]
    async fn a_message_is_read_whole_or_not_at_all() {
        let whole = request();
        let behind = [&whole[..], b"more"].concat();
        assert_eq!(read_message(&mut &behind[..]).await, Some(whole.clone()));
        assert_eq!(read_message(&mut &whole[..whole.len() - 1]).await, None);
        assert_eq!(read_message(&mut &b"HTTP/1.1 400 Bad Request"[..]).await, None);
    }
}
