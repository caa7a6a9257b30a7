//! Frames as bytes again: appended to a buffer, always whole.

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
            Some(max) => words(out, b"UNSUB", &[unsub.sid, max.to_string().as_bytes()]),
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

fn body(out: &mut Vec<u8>, reply: Option<&[u8]>, headers: Option<&[u8]>, payload: &[u8]) {
    if let Some(reply) = reply {
        word(out, reply);
    }
    let headers_len = headers.map_or(0, <[u8]>::len);
    if headers.is_some() {
        word(out, headers_len.to_string().as_bytes());
    }
    word(out, (headers_len + payload.len()).to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers.unwrap_or_default());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}
