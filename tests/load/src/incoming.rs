//! Parser of what a server sends: bytes go in as they are read, and frames come out. An incomplete frame is kept for the next read.

use std::io;

use standin_wire::limits::FrameLimits;
use standin_wire::server::{Frame, Verb};
use standin_wire::{ServerScanner, server};

/// One frame, as far as a component under load needs it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    /// A message.
    Message(MessageFrame<'a>),
    /// A PING, to be answered with PONG.
    Ping,
    /// The answer to a PING.
    Pong,
    /// Any other frame, such as INFO.
    Other,
}

/// The frame of a message, parsed when its reply subject and payload are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MessageFrame<'a> {
    bytes: &'a [u8],
    span: standin_wire::Span<Verb>,
}

impl<'a> MessageFrame<'a> {
    /// Returns the id of the subscription that receives the message.
    pub(crate) fn sid(&self) -> &'a [u8] {
        server::message_sid(self.span.args(self.bytes))
    }

    /// Returns the message's reply subject and payload.
    pub(crate) fn reply_and_payload(&self) -> (Option<&'a [u8]>, &'a [u8]) {
        match server::frame(self.bytes, &self.span) {
            Ok(Frame::Message(message)) => (message.reply, message.payload),
            _ => (None, &[]),
        }
    }
}

/// A read buffer and the scanner of its frames.
#[derive(Debug)]
pub(crate) struct Incoming {
    scanner: ServerScanner,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    /// Makes a buffer of `buffer_bytes`, which must hold the largest frame.
    pub(crate) fn new(buffer_bytes: usize) -> Self {
        Self {
            scanner: ServerScanner::new(FrameLimits::SERVER),
            buffer: vec![0; buffer_bytes],
            start: 0,
            end: 0,
        }
    }

    /// Enlarges the buffer to `buffer_bytes`, if it is smaller.
    pub(crate) fn make_room(&mut self, buffer_bytes: usize) {
        self.buffer.resize(buffer_bytes.max(self.buffer.len()), 0);
    }

    /// Returns the free part of the buffer, for the next read.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// Adds the bytes that were read into [`space`](Self::space).
    /// Zero bytes are an error: the server closed the connection, or a frame is larger than the buffer.
    pub(crate) fn came(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            let what = if self.end == self.buffer.len() {
                "a frame is larger than the buffer"
            } else {
                "the server closed the connection"
            };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.end += bytes;
        Ok(())
    }

    /// Returns the next frame, if it is complete. An `-ERR` of the server is an error.
    pub(crate) fn next(&mut self) -> io::Result<Option<Arrival<'_>>> {
        let bytes = &self.buffer[self.start..self.end];
        let Some(span) = self.scanner.next(bytes).map_err(io::Error::other)? else {
            return Ok(None);
        };
        self.start += span.len;
        let bytes = &bytes[..span.len];
        Ok(Some(match span.verb {
            Verb::Msg | Verb::Hmsg => Arrival::Message(MessageFrame { bytes, span }),
            Verb::Ping => Arrival::Ping,
            Verb::Pong => Arrival::Pong,
            Verb::Err => {
                return Err(io::Error::other(
                    String::from_utf8_lossy(bytes).trim_end().to_owned(),
                ));
            }
            Verb::Ok | Verb::Info | Verb::Move => Arrival::Other,
        }))
    }
}
