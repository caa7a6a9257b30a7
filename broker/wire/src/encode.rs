//! Encoding of frames. Each function appends its bytes to a buffer.
//!
//! An encoded frame decodes to the same frame if its parts are valid: tokens without blanks and line ends, numbers of at
//! most nine digits, JSON without line ends. Every decoded frame has such parts, except an `-ERR` with a quote
//! or `\r` in its text.

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
        client::Frame::Connect(json) => line(out, b"CONNECT", &[json]),
        client::Frame::Publish(publish) => {
            match publish.headers {
                None => out.extend_from_slice(b"PUB"),
                Some(_) => out.extend_from_slice(b"HPUB"),
            }
            argument(out, publish.subject);
            reply_and_sizes(out, publish.reply, publish.headers, publish.payload);
            body(out, publish.headers, publish.payload);
        }
        client::Frame::Sub(sub) => match sub.queue {
            Some(queue) => line(out, b"SUB", &[sub.subject, queue, sub.sid]),
            None => line(out, b"SUB", &[sub.subject, sub.sid]),
        },
        client::Frame::Unsub(unsub) => match unsub.max {
            Some(max) => {
                out.extend_from_slice(b"UNSUB");
                argument(out, unsub.sid);
                numbers_and_line_end(out, None, max);
            }
            None => line(out, b"UNSUB", &[unsub.sid]),
        },
        client::Frame::Ping => out.extend_from_slice(PING),
        client::Frame::Pong => out.extend_from_slice(PONG),
        client::Frame::Move(json) => line(out, b"MOVE", &[json]),
    }
}

/// Appends the server frame `frame` to `out`.
pub fn server(frame: &server::Frame<'_>, out: &mut Vec<u8>) {
    match frame {
        server::Frame::Info(json) => line(out, b"INFO", &[json]),
        server::Frame::Message(delivery) => message(delivery, out),
        server::Frame::Ok => out.extend_from_slice(OK),
        server::Frame::Err(text) => err(text, out),
        server::Frame::Ping => out.extend_from_slice(PING),
        server::Frame::Pong => out.extend_from_slice(PONG),
        server::Frame::Move(json) => line(out, b"MOVE", &[json]),
    }
}

/// Appends `message` as an MSG frame, or as HMSG if it has headers.
#[inline]
pub fn message(message: &server::Message<'_>, out: &mut Vec<u8>) {
    message_line(message, out);
    body(out, message.headers, message.payload);
}

/// Appends only the control line of `message`. The caller appends the body: headers, payload and `\r\n`. A broker that
/// delivers one large message to many subscriptions can share one body between them instead of copying it.
#[inline]
pub fn message_line(message: &server::Message<'_>, out: &mut Vec<u8>) {
    // Two calls, because the length of each is a constant: a call with a variable length costs a memcpy.
    match message.headers {
        None => out.extend_from_slice(b"MSG "),
        Some(_) => out.extend_from_slice(b"HMSG "),
    }
    out.extend_from_slice(message.subject);
    argument(out, message.sid);
    reply_and_sizes(out, message.reply, message.headers, message.payload);
}

/// Appends `-ERR 'text'`. Quotes and line ends in `text` are replaced by blanks, because they would end the text early.
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

/// Appends a control line.
fn line(out: &mut Vec<u8>, verb: &[u8], tokens: &[&[u8]]) {
    out.extend_from_slice(verb);
    tokens.iter().for_each(|token| argument(out, token));
    out.extend_from_slice(b"\r\n");
}

/// Appends a blank and `token`.
#[inline]
fn argument(out: &mut Vec<u8>, token: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(token);
}

/// Appends the numbers at the end of a control line, each after a blank, and the line end. All are formatted in one array and
/// copied at once, which is faster than a copy for each.
#[inline]
fn numbers_and_line_end(out: &mut Vec<u8>, optional: Option<u64>, last: u64) {
    const DIGITS_MAX: usize = u64::MAX.ilog10() as usize + 1;
    // A copy of constant length for the sizes of small messages.
    if optional.is_none() && last < 10 {
        return out.extend_from_slice(&[b' ', b'0' + last as u8, b'\r', b'\n']);
    }
    let mut text = [b' '; 2 * (1 + DIGITS_MAX) + 2];
    let mut start = text.len() - 2;
    text[start..].copy_from_slice(b"\r\n");
    let mut number = |mut value: u64| {
        loop {
            start -= 1;
            text[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        start -= 1;
    };
    number(last);
    if let Some(value) = optional {
        number(value);
    }
    out.extend_from_slice(&text[start..]);
}

/// Appends the end of a message's control line: the reply subject, the sizes, and the line end.
#[inline]
fn reply_and_sizes(out: &mut Vec<u8>, reply: Option<&[u8]>, headers: Option<&[u8]>, payload: &[u8]) {
    if let Some(reply) = reply {
        argument(out, reply);
    }
    let headers_len = headers.map_or(0, <[u8]>::len);
    numbers_and_line_end(
        out,
        headers.map(|_| headers_len as u64),
        (headers_len + payload.len()) as u64,
    );
}

/// Appends the part of a message that follows the control line.
#[inline]
fn body(out: &mut Vec<u8>, headers: Option<&[u8]>, payload: &[u8]) {
    out.extend_from_slice(headers.unwrap_or_default());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for value in [0, 7, 10, 999_999_999, u64::MAX] {
            let mut out = Vec::new();
            numbers_and_line_end(&mut out, None, value);
            assert_eq!(out, format!(" {value}\r\n").into_bytes());
            out.clear();
            numbers_and_line_end(&mut out, Some(value), u64::MAX);
            assert_eq!(out, format!(" {value} {}\r\n", u64::MAX).into_bytes());
        }
    }

    #[test]
    fn quotes_and_line_ends_in_an_err_text_are_replaced() {
        let mut out = Vec::new();
        err(b"it's\r\nPING", &mut out);
        assert_eq!(out, b"-ERR 'it s  PING'\r\n");
    }
}
