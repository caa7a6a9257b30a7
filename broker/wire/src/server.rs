//! The frames that a server sends to a client.

use crate::error::WireError;
use crate::limits::FrameLimits;
use crate::line::{MessageArgs, message_tokens, trim};
use crate::scanner::{Body, Dialect, PlainMessage, Scanner, Span};

/// Verb of a server's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Delivers a message.
    Msg,
    /// Delivers a message with headers.
    Hmsg,
    /// Confirms a command (only with `verbose`).
    Ok,
    /// Reports an error.
    Err,
    /// Requests a PONG.
    Ping,
    /// Answers a PING of the client.
    Pong,
    /// Describes the server.
    Info,
    /// A step of a move; see [`moves`](crate::moves). Only sidecars are sent it.
    Move,
}

/// A server's frame. Borrows the bytes that were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `INFO {json}`
    Info(&'a [u8]),
    /// `MSG subject sid [reply] size` and `HMSG subject sid [reply] header-size total-size`
    Message(Message<'a>),
    /// `+OK`
    Ok,
    /// `-ERR 'text'`, without the quotes.
    Err(&'a [u8]),
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `MOVE {json}`
    Move(&'a [u8]),
}

/// The arguments and the body of MSG or HMSG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Subject to which the message was published.
    pub subject: &'a [u8],
    /// Id of the subscription that receives the message.
    pub sid: &'a [u8],
    /// Subject for a reply.
    pub reply: Option<&'a [u8]>,
    /// The header block, with its version line and its closing empty line. `None` for MSG.
    pub headers: Option<&'a [u8]>,
    /// The payload, without headers and without the line end that follows it.
    pub payload: &'a [u8],
}

/// The server's side of the protocol, as a parameter of [`Scanner`].
#[derive(Debug, Clone, Copy)]
pub enum Server {}

/// Scanner of the frames that servers send.
pub type ServerScanner = Scanner<Server>;

impl Dialect for Server {
    type Verb = Verb;

    const PLAIN: PlainMessage<Verb> = PlainMessage {
        head: *b"MSG ",
        verb: Verb::Msg,
        tokens: 4..=5,
    };

    #[inline]
    fn verb(bytes: &[u8]) -> Result<Option<(Verb, usize)>, WireError> {
        crate::scanner::verb(
            bytes,
            &[
                (b"MSG", true, Verb::Msg),
                (b"HMSG", true, Verb::Hmsg),
                (b"PONG", false, Verb::Pong),
                (b"PING", false, Verb::Ping),
                (b"+OK", false, Verb::Ok),
                (b"-ERR", false, Verb::Err),
                (b"INFO", false, Verb::Info),
                (b"MOVE", true, Verb::Move),
            ],
        )
    }

    #[inline]
    fn body(verb: Verb, args: &[u8]) -> Result<Body, WireError> {
        match verb {
            Verb::Msg | Verb::Hmsg => message_args(verb, args).map(|args| Body::Payload(args.total)),
            Verb::Info | Verb::Ok | Verb::Err | Verb::Ping | Verb::Pong | Verb::Move => Ok(Body::Nothing),
        }
    }
}

/// Decodes the server frame at the start of `buf`. Returns the frame and its length in bytes, or `None` if more bytes are
/// needed.
///
/// # Errors
/// [`WireError`] if the bytes are not the beginning of a valid frame within `limits`.
pub fn decode(buf: &[u8], limits: FrameLimits) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(span) = Scanner::<Server>::new(limits).next(buf)? else {
        return Ok(None);
    };
    Ok(Some((frame(&buf[..span.len], &span)?, span.len)))
}

/// Decodes the frame `bytes`, for which a [`Scanner`] returned `span`.
///
/// # Errors
/// [`WireError::Arguments`] if `span` does not belong to these bytes.
#[inline]
pub fn frame<'a>(bytes: &'a [u8], span: &Span<Verb>) -> Result<Frame<'a>, WireError> {
    let (args, body) = span.parts(bytes);
    Ok(match span.verb {
        Verb::Msg | Verb::Hmsg => {
            let args = message_args(span.verb, args)?;
            let (headers, payload) = args.split(body);
            let [subject, sid] = args.names;
            Frame::Message(Message {
                subject,
                sid,
                reply: args.reply,
                headers,
                payload,
            })
        }
        Verb::Ok => Frame::Ok,
        Verb::Err => Frame::Err(unquote(args)),
        Verb::Ping => Frame::Ping,
        Verb::Pong => Frame::Pong,
        Verb::Info => Frame::Info(trim(args)),
        Verb::Move => Frame::Move(trim(args)),
    })
}

/// Returns the subscription id in the arguments `args` of MSG or HMSG; empty if there is none.
#[inline]
#[must_use]
pub fn message_sid(args: &[u8]) -> &[u8] {
    match message_tokens::<5>(args) {
        Some((found, count)) if count >= 2 => found[1],
        _ => &[],
    }
}

fn unquote(args: &[u8]) -> &[u8] {
    match trim(args) {
        [b'\'', text @ .., b'\''] => text,
        text => text,
    }
}

#[inline]
fn message_args(verb: Verb, args: &[u8]) -> Result<MessageArgs<'_, 2>, WireError> {
    let (args, verb, expected) = if verb == Verb::Msg {
        let args = MessageArgs::parse::<4>(args, false);
        (args, "MSG", "MSG subject sid [reply] size")
    } else {
        let args = MessageArgs::parse::<5>(args, true);
        (args, "HMSG", "HMSG subject sid [reply] header-size total-size")
    };
    args.ok_or(WireError::Arguments { verb, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Frame<'_> {
        let (frame, len) = decode(text.as_bytes(), FrameLimits::SERVER).unwrap().unwrap();
        assert_eq!(len, text.len(), "{text:?}");
        frame
    }

    fn error(text: &str) -> WireError {
        decode(text.as_bytes(), FrameLimits::SERVER).unwrap_err()
    }

    fn message<'a>(subject: &'a str, reply: Option<&'a str>, payload: &'a str) -> Frame<'a> {
        Frame::Message(Message {
            subject: subject.as_bytes(),
            sid: b"7",
            reply: reply.map(str::as_bytes),
            headers: None,
            payload: payload.as_bytes(),
        })
    }

    #[test]
    fn msg_has_a_subject_a_sid_an_optional_reply_and_a_payload() {
        for (text, subject, reply, payload) in [
            ("MSG foo 7 5\r\nhello\r\n", "foo", None, "hello"),
            ("msg\tfoo  7 bar 5\nhello\r\n", "foo", Some("bar"), "hello"),
            ("MSG f\ro 7 000000000\r\n\r\n", "f\ro", None, ""),
        ] {
            assert_eq!(one(text), message(subject, reply, payload));
        }
    }

    #[test]
    fn hmsg_splits_headers_from_payload() {
        let Frame::Message(found) = one("HMSG in 7 16 18\r\nNATS/1.0 503\r\n\r\nhi\r\n") else {
            panic!("not a message")
        };
        assert_eq!(found.headers, Some(b"NATS/1.0 503\r\n\r\n".as_slice()));
        assert_eq!((found.payload, found.reply), (b"hi".as_slice(), None));
        let Frame::Message(found) = one("HMSG a 7 r 0 0\r\n\r\n") else {
            panic!("not a message")
        };
        assert_eq!(
            (found.headers, found.reply),
            (Some(b"".as_slice()), Some(b"r".as_slice()))
        );
    }

    #[test]
    fn frames_without_payload_are_decoded() {
        for (text, frame) in [
            ("INFO {\"a\":1} \r\n", Frame::Info(b"{\"a\":1}")),
            ("info{}\n", Frame::Info(b"{}")),
            ("+OK\r\n", Frame::Ok),
            ("PING\r\n", Frame::Ping),
            ("PONG\r\n", Frame::Pong),
            // The quotes of the text are removed.
            ("-ERR 'Stale Connection'\r\n", Frame::Err(b"Stale Connection")),
            ("-ERR Stale\r\n", Frame::Err(b"Stale")),
            ("-ERR\r\n", Frame::Err(b"")),
            ("-ERR '\r\n", Frame::Err(b"'")),
        ] {
            assert_eq!(one(text), frame, "{text:?}");
        }
    }

    #[test]
    fn message_sid_returns_the_second_argument() {
        assert_eq!(message_sid(b" foo 17 3"), b"17");
        assert_eq!(message_sid(b" foo 17 reply 3"), b"17");
        assert_eq!(message_sid(b" foo 17 reply 3 9"), b"17");
        assert_eq!(message_sid(b" foo"), b"");
    }

    #[test]
    fn errors_about_arguments_show_the_expected_form() {
        for text in [
            "MSG \r\n",
            "MSG a 1\r\n",
            "MSG a 1 b c 1\r\n",
            "MSG a 1 x\r\n",
            "HMSG a 1 1\r\n",
            "HMSG a 1 2 1\r\n",
            "HMSG a 1 b c 1 1\r\n",
        ] {
            let WireError::Arguments { verb, expected } = error(text) else {
                panic!("{text:?}")
            };
            assert!(text.starts_with(verb) && expected.starts_with(verb), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_verb_is_an_error_at_its_first_wrong_byte() {
        for text in [
            "X",
            "\r",
            " PING",
            "MSGa",
            "MSG\r",
            "PU",
            "SU",
            "CONNECT {}\r\n",
            "-EX",
        ] {
            assert_eq!(error(text).kind(), "unknown_verb", "{text:?}");
        }
        for text in ["", "M", "HMS", "MSG", "+O", "-ERR", "INFO {"] {
            assert_eq!(decode(text.as_bytes(), FrameLimits::SERVER), Ok(None), "{text:?}");
        }
    }
}
