//! The frames that a server sends to a client.

use crate::error::WireError;
use crate::limits::FrameLimits;
use crate::line::{message_tokens, size, trim};
use crate::scan::{Announced, Dialect, Plain, Scanner, Span};

/// The verb of a server's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A message.
    Msg,
    /// A message with headers.
    Hmsg,
    /// A command was taken (only with `verbose`).
    Ok,
    /// Something was refused.
    Err,
    /// A round trip.
    Ping,
    /// The answer to the client's PING.
    Pong,
    /// Who the server is and what it offers.
    Info,
}

/// A server's frame, over the bytes it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `INFO {json}`
    Info(&'a [u8]),
    /// `MSG subject sid [reply] size` and `HMSG subject sid [reply] header-size total-size`
    Message(Message<'a>),
    /// `+OK`
    Ok,
    /// `-ERR 'text'`; the text without its quotes.
    Err(&'a [u8]),
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
}

/// The arguments of MSG or HMSG, and what they carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The subject it was published to.
    pub subject: &'a [u8],
    /// The subscription it is for.
    pub sid: &'a [u8],
    /// Where an answer is to go.
    pub reply: Option<&'a [u8]>,
    /// The header block with its own version line and end; `None` for MSG.
    pub headers: Option<&'a [u8]>,
    /// The message without headers and without the closing line end.
    pub payload: &'a [u8],
}

/// The server's side of the protocol, for [`Scanner`].
#[derive(Debug, Clone, Copy)]
pub enum Server {}

impl Dialect for Server {
    type Verb = Verb;

    const PLAIN: Plain<Verb> = Plain {
        head: *b"MSG ",
        verb: Verb::Msg,
        tokens: 4..=5,
    };

    #[inline]
    fn verb(bytes: &[u8]) -> Result<Option<(Verb, usize)>, WireError> {
        crate::scan::verb(
            bytes,
            &[
                (b"MSG", true, Verb::Msg),
                (b"HMSG", true, Verb::Hmsg),
                (b"PONG", false, Verb::Pong),
                (b"PING", false, Verb::Ping),
                (b"+OK", false, Verb::Ok),
                (b"-ERR", false, Verb::Err),
                (b"INFO", false, Verb::Info),
            ],
        )
    }

    #[inline]
    fn announced(verb: Verb, args: &[u8]) -> Result<Announced, WireError> {
        match verb {
            Verb::Msg => message_args(args).map(|args| Announced::Payload(args.total)),
            Verb::Hmsg => hmessage_args(args).map(|args| Announced::Payload(args.total)),
            Verb::Info | Verb::Ok | Verb::Err | Verb::Ping | Verb::Pong => Ok(Announced::Nothing),
        }
    }
}

/// Takes the whole server frame at the head of `buf`.
///
/// Returns the frame and its length in bytes, `None` when more bytes are needed.
///
/// # Errors
/// [`WireError`] when the bytes can no longer become a frame within `limits`.
pub fn decode(buf: &[u8], limits: FrameLimits) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(span) = Scanner::<Server>::new(limits).next(buf)? else {
        return Ok(None);
    };
    Ok(Some((frame(&buf[..span.len], &span)?, span.len)))
}

/// The frame that `span`, as a [`Scanner`] found it, has in `bytes`.
///
/// # Errors
/// [`WireError::Arguments`] when `span` is not the span of these bytes.
#[inline]
pub fn frame<'a>(bytes: &'a [u8], span: &Span<Verb>) -> Result<Frame<'a>, WireError> {
    let (args, body) = span.parts(bytes);
    Ok(match span.verb {
        Verb::Msg => {
            let args = message_args(args)?;
            Frame::Message(Message {
                subject: args.subject,
                sid: args.sid,
                reply: args.reply,
                headers: None,
                payload: body,
            })
        }
        Verb::Hmsg => {
            let args = hmessage_args(args)?;
            let (headers, payload) = body.split_at(args.headers.min(body.len()));
            Frame::Message(Message {
                subject: args.subject,
                sid: args.sid,
                reply: args.reply,
                headers: Some(headers),
                payload,
            })
        }
        Verb::Ok => Frame::Ok,
        Verb::Err => Frame::Err(unquote(args)),
        Verb::Ping => Frame::Ping,
        Verb::Pong => Frame::Pong,
        Verb::Info => Frame::Info(trim(args)),
    })
}

/// The sid of the MSG or HMSG control line `args` (behind the verb); empty when there is none.
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

struct MessageArgs<'a> {
    subject: &'a [u8],
    sid: &'a [u8],
    reply: Option<&'a [u8]>,
    headers: usize,
    total: usize,
}

#[inline]
fn message_args(args: &[u8]) -> Result<MessageArgs<'_>, WireError> {
    let wrong = WireError::Arguments {
        verb: "MSG",
        expected: "MSG subject sid [reply] size",
    };
    let (found, count) = message_tokens::<4>(args).ok_or(wrong)?;
    let (reply, total) = match count {
        3 => (None, found[2]),
        4 => (Some(found[2]), found[3]),
        _ => return Err(wrong),
    };
    let total = size(total).ok_or(wrong)?;
    Ok(MessageArgs {
        subject: found[0],
        sid: found[1],
        reply,
        headers: 0,
        total,
    })
}

#[inline]
fn hmessage_args(args: &[u8]) -> Result<MessageArgs<'_>, WireError> {
    let wrong = WireError::Arguments {
        verb: "HMSG",
        expected: "HMSG subject sid [reply] header-size total-size",
    };
    let (found, count) = message_tokens::<5>(args).ok_or(wrong)?;
    let (reply, headers, total) = match count {
        4 => (None, found[2], found[3]),
        5 => (Some(found[2]), found[3], found[4]),
        _ => return Err(wrong),
    };
    let (headers, total) = (size(headers).ok_or(wrong)?, size(total).ok_or(wrong)?);
    if headers > total {
        return Err(wrong);
    }
    Ok(MessageArgs {
        subject: found[0],
        sid: found[1],
        reply,
        headers,
        total,
    })
}
