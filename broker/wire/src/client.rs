//! The frames that a client sends to a server.
//!
//! `nats-server` also accepts `+OK` and `INFO` from a client, and ignores them. Here they are unknown verbs: no known client
//! library sends them, so a peer that does is most likely a server.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::limits::FrameLimits;
use crate::line::{MessageArgs, size, tokens, trim};
use crate::scanner::{Body, Dialect, PlainMessage, Scanner, Span};

/// Verb of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Publishes a message.
    Pub,
    /// Publishes a message with headers.
    Hpub,
    /// Answers a PING of the server.
    Pong,
    /// Requests a PONG.
    Ping,
    /// Begins a subscription.
    Sub,
    /// Ends a subscription, at once or after a number of messages.
    Unsub,
    /// States the options and credentials of the client.
    Connect,
    /// A step of a move; see [`moves`](crate::moves). Only sidecars send it.
    Move,
}

/// A client's frame. Borrows the bytes that were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `CONNECT {json}`
    Connect(&'a [u8]),
    /// `PUB subject [reply] size` and `HPUB subject [reply] header-size total-size`
    Publish(Publish<'a>),
    /// `SUB subject [queue] sid`
    Sub(Sub<'a>),
    /// `UNSUB sid [max]`
    Unsub(Unsub<'a>),
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `MOVE {json}`
    Move(&'a [u8]),
}

/// The arguments and the body of PUB or HPUB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Subject of the message.
    pub subject: &'a [u8],
    /// Subject for a reply.
    pub reply: Option<&'a [u8]>,
    /// The header block, with its version line and its closing empty line. `None` for PUB.
    pub headers: Option<&'a [u8]>,
    /// The payload, without headers and without the line end that follows it.
    pub payload: &'a [u8],
}

/// The arguments of SUB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sub<'a> {
    /// Subject, possibly with wildcards.
    pub subject: &'a [u8],
    /// Queue group, if the subscription is a member of one.
    pub queue: Option<&'a [u8]>,
    /// Subscription id, chosen by the client.
    pub sid: &'a [u8],
}

/// The arguments of UNSUB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsub<'a> {
    /// Subscription id, chosen by the client.
    pub sid: &'a [u8],
    /// Number of messages, counted from the SUB, after which the subscription ends. `None` if it ends at once:
    /// there is no max, or it is 0 or not a valid number, as in `nats-server`.
    pub max: Option<u64>,
}

/// The client's side of the protocol, as a parameter of [`Scanner`].
#[derive(Debug, Clone, Copy)]
pub enum Client {}

/// Scanner of the frames that clients send.
pub type ClientScanner = Scanner<Client>;

impl Dialect for Client {
    type Verb = Verb;

    const PLAIN: PlainMessage<Verb> = PlainMessage {
        head: *b"PUB ",
        verb: Verb::Pub,
        tokens: 3..=4,
    };

    #[inline]
    fn verb(bytes: &[u8]) -> Result<Option<(Verb, usize)>, WireError> {
        crate::scanner::verb(
            bytes,
            &[
                (b"PUB", true, Verb::Pub),
                (b"HPUB", true, Verb::Hpub),
                (b"PING", false, Verb::Ping),
                (b"PONG", false, Verb::Pong),
                (b"SUB", true, Verb::Sub),
                (b"UNSUB", true, Verb::Unsub),
                (b"CONNECT", false, Verb::Connect),
                (b"MOVE", true, Verb::Move),
            ],
        )
    }

    #[inline]
    fn body(verb: Verb, args: &[u8]) -> Result<Body, WireError> {
        match verb {
            Verb::Pub | Verb::Hpub => publish_args(verb, args).map(|args| Body::Payload(args.total)),
            Verb::Sub => sub_args(args).map(|_| Body::Nothing),
            Verb::Unsub => unsub_args(args).map(|_| Body::Nothing),
            Verb::Connect if trim(args).is_empty() => Err(wrong("CONNECT", "CONNECT {json}")),
            Verb::Connect | Verb::Ping | Verb::Pong | Verb::Move => Ok(Body::Nothing),
        }
    }
}

/// Decodes the client frame at the start of `buf`. Returns the frame and its length in bytes, or `None` if more bytes are
/// needed.
///
/// # Errors
/// [`WireError`] if the bytes are not the beginning of a valid frame within `limits`.
pub fn decode(buf: &[u8], limits: FrameLimits) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(span) = Scanner::<Client>::new(limits).next(buf)? else {
        return Ok(None);
    };
    Ok(Some((frame(&buf[..span.len], &span)?, span.len)))
}

/// Decodes the frame `bytes`, for which a [`Scanner`] returned `span`.
///
/// # Errors
/// [`WireError::Arguments`], only if `span` does not belong to these bytes.
///
/// # Panics
/// Only if `span` does not belong to these bytes.
#[inline]
pub fn frame<'a>(bytes: &'a [u8], span: &Span<Verb>) -> Result<Frame<'a>, WireError> {
    let (args, body) = span.parts(bytes);
    Ok(match span.verb {
        Verb::Pub | Verb::Hpub => {
            let args = publish_args(span.verb, args)?;
            let (headers, payload) = args.split(body);
            Frame::Publish(Publish {
                subject: args.names[0],
                reply: args.reply,
                headers,
                payload,
            })
        }
        Verb::Sub => Frame::Sub(sub_args(args)?),
        Verb::Unsub => Frame::Unsub(unsub_args(args)?),
        Verb::Connect => Frame::Connect(trim(args)),
        Verb::Ping => Frame::Ping,
        Verb::Pong => Frame::Pong,
        Verb::Move => Frame::Move(trim(args)),
    })
}

const fn wrong(verb: &'static str, expected: &'static str) -> WireError {
    WireError::Arguments { verb, expected }
}

#[inline]
fn publish_args(verb: Verb, args: &[u8]) -> Result<MessageArgs<'_, 1>, WireError> {
    let (args, verb, expected) = if verb == Verb::Pub {
        let args = MessageArgs::parse::<3>(args, false);
        (args, "PUB", "PUB subject [reply] size")
    } else {
        let args = MessageArgs::parse::<4>(args, true);
        (args, "HPUB", "HPUB subject [reply] header-size total-size")
    };
    args.ok_or(wrong(verb, expected))
}

fn sub_args(args: &[u8]) -> Result<Sub<'_>, WireError> {
    let (subject, queue, sid) = match tokens::<3>(args) {
        Some(([subject, sid, _], 2)) => (subject, None, sid),
        Some(([subject, queue, sid], 3)) => (subject, Some(queue), sid),
        _ => return Err(wrong("SUB", "SUB subject [queue] sid")),
    };
    Ok(Sub { subject, queue, sid })
}

fn unsub_args(args: &[u8]) -> Result<Unsub<'_>, WireError> {
    let (sid, max) = match tokens::<2>(args) {
        Some(([sid, _], 1)) => (sid, None),
        Some(([sid, max], 2)) => (sid, size(max).filter(|max| *max > 0)),
        _ => return Err(wrong("UNSUB", "UNSUB sid [max]")),
    };
    let max = max.map(|max| max as u64);
    Ok(Unsub { sid, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Frame<'_> {
        let (frame, len) = decode(text.as_bytes(), FrameLimits::CLIENT).unwrap().unwrap();
        assert_eq!(len, text.len(), "{text:?}");
        frame
    }

    fn error(text: &str) -> WireError {
        decode(text.as_bytes(), FrameLimits::CLIENT).unwrap_err()
    }

    fn publish<'a>(subject: &'a str, reply: Option<&'a str>, payload: &'a str) -> Frame<'a> {
        Frame::Publish(Publish {
            subject: subject.as_bytes(),
            reply: reply.map(str::as_bytes),
            headers: None,
            payload: payload.as_bytes(),
        })
    }

    fn sub<'a>(subject: &'a str, queue: Option<&'a str>, sid: &'a str) -> Frame<'a> {
        Frame::Sub(Sub {
            subject: subject.as_bytes(),
            queue: queue.map(str::as_bytes),
            sid: sid.as_bytes(),
        })
    }

    #[test]
    fn pub_has_a_subject_an_optional_reply_and_a_payload() {
        for (text, reply, payload) in [
            ("PUB foo 5\r\nhello\r\n", None, "hello"),
            ("PUB foo bar 5\r\nhello\r\n", Some("bar"), "hello"),
            ("PUB foo 0\r\n\r\n", None, ""),
            ("PUB foo 000000004\r\n\r\n\r\n\r\n", None, "\r\n\r\n"),
        ] {
            assert_eq!(one(text), publish("foo", reply, payload));
        }
    }

    #[test]
    fn hpub_splits_headers_from_payload() {
        let block = "NATS/1.0\r\n\r\n";
        for (line, reply, headers, payload) in [
            ("HPUB foo 12 13", None, block, "x"),
            ("HPUB foo bar 12 12", Some(b"bar".as_slice()), block, ""),
            ("HPUB foo 0 1", None, "", "x"),
        ] {
            let text = format!("{line}\r\n{headers}{payload}\r\n");
            let Frame::Publish(found) = one(&text) else {
                panic!("{text}")
            };
            assert_eq!((found.reply, found.headers), (reply, Some(headers.as_bytes())));
            assert_eq!(found.payload, payload.as_bytes());
        }
    }

    #[test]
    fn arguments_of_sub_and_unsub_are_decoded() {
        let sid = b"1".as_slice();
        assert_eq!(one("SUB foo.* 1\r\n"), sub("foo.*", None, "1"));
        assert_eq!(one("SUB foo.* q 1\r\n"), sub("foo.*", Some("q"), "1"));
        assert_eq!(one("UNSUB 1\r\n"), Frame::Unsub(Unsub { sid, max: None }));
        assert_eq!(one("UNSUB 1 5\r\n"), Frame::Unsub(Unsub { sid, max: Some(5) }));
    }

    #[test]
    fn s4_an_unsub_with_an_invalid_max_ends_the_subscription_at_once() {
        for text in [
            "UNSUB 1 0\r\n",
            "UNSUB 1 x\r\n",
            "UNSUB 1 -5\r\n",
            "UNSUB 1 0000000002\r\n",
        ] {
            assert_eq!(one(text), Frame::Unsub(Unsub { sid: b"1", max: None }), "{text}");
        }
    }

    #[test]
    fn the_json_of_connect_is_returned_unchanged() {
        for text in ["CONNECT {}\r\n", "connect{}\n", "Connect \t {} \r\n"] {
            assert_eq!(one(text), Frame::Connect(b"{}"), "{text:?}");
        }
        assert_eq!(error("CONNECT\r\n").kind(), "arguments");
        assert_eq!(error("CONNECT  \n").kind(), "arguments");
    }

    #[test]
    fn text_after_ping_and_pong_is_ignored() {
        for text in ["PING\r\n", "ping\n", "PINGxyz\r\n", "PING \t\r\r\n"] {
            assert_eq!(one(text), Frame::Ping, "{text:?}");
        }
        assert_eq!(one("PONGxyz\n"), Frame::Pong);
    }

    #[test]
    fn a_carriage_return_is_a_blank_in_sub_and_part_of_a_token_in_pub() {
        assert_eq!(one("SUB foo\r1\r\r\n"), sub("foo", None, "1"));
        assert_eq!(one("PUB f\ro 1\r\nx\r\n"), publish("f\ro", None, "x"));
        assert_eq!(error("PUB foo 1\r\r\nx\r\n").kind(), "arguments");
        assert_eq!(error("PUB foo\r1\r\nx\r\n").kind(), "arguments");
    }

    #[test]
    fn errors_about_arguments_show_the_expected_form() {
        for text in [
            "PUB \r\n",
            "PUB a\r\n",
            "PUB a b c 1\r\n",
            "PUB a -1\r\n",
            "PUB a +1\r\n",
            "PUB a 1x\r\n",
            "PUB a 0000000001\r\n",
            "HPUB a 1\r\n",
            "HPUB a b 1 1 1\r\n",
            "HPUB a 2 1\r\n",
            "HPUB a x 1\r\n",
            "SUB \r\n",
            "SUB a\r\n",
            "SUB a b c d\r\n",
            "UNSUB \r\n",
            "UNSUB 1 2 3\r\n",
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
            "PUX",
            "\r",
            "\n",
            " PING",
            "\tPING",
            "PUBa",
            "PUB\r",
            "SUB\r\n",
            "+OK\r\n",
            "-ERR 'x'\r\n",
            "INFO {}\r\n",
            "MSG a 1 1\r\n",
            "G",
            "\u{16}\u{3}",
            "PUB\u{c}a 1\r\n",
        ] {
            assert_eq!(error(text).kind(), "unknown_verb", "{text:?}");
        }
        for text in ["", "P", "pu", "PUB", "UNSU", "CONNEC"] {
            assert_eq!(decode(text.as_bytes(), FrameLimits::CLIENT), Ok(None), "{text:?}");
        }
    }
}
