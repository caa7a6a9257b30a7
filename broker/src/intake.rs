//! Input of one connection. Bytes are read into the worker's buffer and processed there; only the unprocessed rest is copied out.
//! So an idle connection has no buffer.

use std::io;

use bytes::{Buf, BytesMut};
use standin_tls::stream::Stream;

use crate::close_reason::CloseReason;

/// Received bytes of one connection that are not processed yet.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// The beginning of an incomplete frame, or input left for the next turn.
    held: BytesMut,
}

impl Intake {
    /// Creates the input of a connection from which `bytes` were already read.
    pub(crate) fn with(bytes: &[u8]) -> Self {
        Self { held: bytes.into() }
    }

    /// Processes the held bytes. `take` processes bytes from the start of its argument, and returns their number.
    pub(crate) fn take_held(
        &mut self,
        take: impl FnOnce(&[u8]) -> Result<usize, CloseReason>,
    ) -> Result<(), CloseReason> {
        let taken = take(&self.held)?;
        self.held.advance(taken);
        self.free_if_empty();
        Ok(())
    }

    /// Reads once, and passes the held bytes followed by the new ones to `take`. Returns the number of bytes read.
    ///
    /// # Errors
    /// The error of `take`, or the reason if the connection has ended.
    pub(crate) fn read(
        &mut self,
        socket: &Stream,
        buffer: &mut [u8],
        take: impl FnOnce(&[u8]) -> Result<usize, CloseReason>,
    ) -> Result<usize, CloseReason> {
        // The held bytes are copied in front of the new ones, so that the new ones need not be copied.
        let held_len = self.held.len();
        let fits = held_len <= buffer.len() / 2;
        let start = if fits { held_len } else { 0 };
        if fits {
            buffer[..held_len].copy_from_slice(&self.held);
        }
        let count = match socket.try_read(&mut buffer[start..]) {
            Ok(0) => return Err(CloseReason::ClientClosed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(_) => return Err(CloseReason::ReadError),
        };
        if fits {
            let bytes = &buffer[..start + count];
            self.held.clear();
            let taken = take(bytes)?;
            self.held.extend_from_slice(&bytes[taken..]);
            self.free_if_empty();
        } else {
            self.held.extend_from_slice(&buffer[..count]);
            self.take_held(take)?;
        }
        Ok(count)
    }

    fn free_if_empty(&mut self) {
        if self.held.is_empty() && self.held.capacity() > 0 {
            self.held = BytesMut::new();
        }
    }
}
