//! Frames as bytes again: appended to a buffer, always whole.
//!
//! What is encoded here decodes to the same frame if its parts are what a decoder gives: tokens without blanks and line
//! ends, a max and sizes of at most nine digits, JSON without line ends.

use crate::client;
use crate::server;

/// The line `PING\r\n`.
pub const PING: &[u8] = b"PING\r\n";
/// The line `PONG\r\n`.
pub const PONG: &[u8] = b"PONG\r\n";
/// The line `+OK\r\n`.
pub const OK: &[u8] = b"+OK\r\n";

/// Appends the client frame `frame` to `out`.
pub fn client(frame: &client::Frame<'_>, out: &mut Vec<u8>) {
    match frame {
        client::Frame::Connect(json) => words(out, b"CONNECT", &[json]),
        client::Frame::Publish(publish) => {
            let verb: &[u8] = if publish.headers.is_some() {
                b"HPUB"
            } else {
                b"PUB"
            };
            out.extend_from_slice(verb);
            word(out, publish.subject);
            body(out, publish.reply, publish.headers, publish.payload);
        }
        client::Frame::Sub(sub) => match sub.queue {
            Some(queue) => words(out, b"SUB", &[sub.subject, queue, sub.sid]),
            None => words(out, b"SUB", &[sub.subject, sub.sid]),
        },
        client::Frame::Unsub(unsub) => match unsub.max {
            Some(max) => {
                out.extend_from_slice(b"UNSUB");
                word(out, unsub.sid);
                number(out, max);
                out.extend_from_slice(b"\r\n");
            }
            None => words(out, b"UNSUB", &[unsub.sid]),
        },
        client::Frame::Ping => out.extend_from_slice(PING),
        client::Frame::Pong => out.extend_from_slice(PONG),
    }
}

/// Appends the server frame `frame` to `out`.
pub fn server(frame: &server::Frame<'_>, out: &mut Vec<u8>) {
    match frame {
        server::Frame::Info(json) => words(out, b"INFO", &[json]),
        server::Frame::Message(message) => {
            let verb: &[u8] = if message.headers.is_some() {
                b"HMSG"
            } else {
                b"MSG"
            };
            out.extend_from_slice(verb);
            word(out, message.subject);
            word(out, message.sid);
            body(out, message.reply, message.headers, message.payload);
        }
        server::Frame::Ok => out.extend_from_slice(OK),
        server::Frame::Err(text) => err(text, out),
        server::Frame::Ping => out.extend_from_slice(PING),
        server::Frame::Pong => out.extend_from_slice(PONG),
    }
}

/// Appends `-ERR 'text'`. A quote or a line end in `text` would end it early, so they become blanks.
pub fn err(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"-ERR '");
    out.extend(text.iter().map(|byte| {
        if matches!(byte, b'\'' | b'\r' | b'\n') {
            b' '
        } else {
            *byte
        }
    }));
    out.extend_from_slice(b"'\r\n");
}

fn words(out: &mut Vec<u8>, verb: &[u8], tokens: &[&[u8]]) {
    out.extend_from_slice(verb);
    tokens.iter().for_each(|token| word(out, token));
    out.extend_from_slice(b"\r\n");
}

fn word(out: &mut Vec<u8>, token: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(token);
}

/// A blank and `value` in decimal, without an allocation of its own.
fn number(out: &mut Vec<u8>, mut value: u64) {
    const DIGITS_MAX: usize = u64::MAX.ilog10() as usize + 1;
    let mut digits = [b'0'; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        digits[start] += (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    word(out, &digits[start..]);
}

fn body(out: &mut Vec<u8>, reply: Option<&[u8]>, headers: Option<&[u8]>, payload: &[u8]) {
    if let Some(reply) = reply {
        word(out, reply);
    }
    let headers_len = headers.map_or(0, <[u8]>::len);
    if headers.is_some() {
        number(out, headers_len as u64);
    }
    number(out, (headers_len + payload.len()) as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers.unwrap_or_default());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_decimal() {
        for value in [0, 7, 10, 999_999_999, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, format!(" {value}").into_bytes());
        }
    }

    #[test]
    fn an_err_text_cannot_end_its_line_or_its_quotes() {
        let mut out = Vec::new();
        err(b"it's\r\nPING", &mut out);
        assert_eq!(out, b"-ERR 'it s  PING'\r\n");
    }
}
