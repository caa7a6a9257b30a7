//! What comes in over one connection: read into the worker's buffer, taken from there, and only an unfinished frame is copied away.
//! So an idle connection has no buffers.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::closing::Reason;

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// The beginning of a frame whose rest has not come, or what was left for the next turn.
    held: BytesMut,
}

impl Intake {
    /// With bytes that came already.
    pub(crate) fn with(bytes: &[u8]) -> Self {
        Self { held: bytes.into() }
    }

    /// Goes on with what was read before. `take` takes of the head of what it is given, and returns how much.
    pub(crate) fn take_held(
        &mut self,
        take: impl FnOnce(&[u8]) -> Result<usize, Reason>,
    ) -> Result<(), Reason> {
        let taken = take(&self.held)?;
        self.held.advance(taken);
        self.let_go();
        Ok(())
    }

    /// Reads once, what is there, and gives it to `take`, behind what was left. Returns how many bytes came.
    ///
    /// # Errors
    /// What `take` says; the end of the connection.
    pub(crate) fn read(
        &mut self,
        socket: &TcpStream,
        buffer: &mut [u8],
        take: impl FnOnce(&[u8]) -> Result<usize, Reason>,
    ) -> Result<usize, Reason> {
        // An unfinished frame is put before what is read now, so that what follows it is not copied.
        let lent = self.held.len();
        let lends = lent <= buffer.len() / 2;
        let start = if lends { lent } else { 0 };
        if lends {
            buffer[..lent].copy_from_slice(&self.held);
        }
        let count = match socket.try_read(&mut buffer[start..]) {
            Ok(0) => return Err(Reason::ClientClosed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(_) => return Err(Reason::ReadError),
        };
        if count < buffer.len() - start {
            forget_readiness(socket);
        }
        if lends {
            let bytes = &buffer[..start + count];
            self.held.clear();
            let taken = take(bytes)?;
            self.held.extend_from_slice(&bytes[taken..]);
            self.let_go();
        } else {
            self.held.extend_from_slice(&buffer[..count]);
            self.take_held(take)?;
        }
        Ok(count)
    }

    fn let_go(&mut self) {
        if self.held.is_empty() && self.held.capacity() > 0 {
            self.held = BytesMut::new();
        }
    }
}

/// A read that did not fill the buffer has emptied the socket: what comes later is told anew, so the next read would only
/// find nothing. The end of the stream is not forgotten.
fn forget_readiness(socket: &TcpStream) {
    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    // The error is the one given.
    let _ = socket.try_io(Interest::READABLE, nothing);
}
