//! A blocking TCP connection, with TLS if the options say so.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustls::{ClientConnection, StreamOwned};

use crate::access::Access;

/// Size of the buffer for encrypted bytes. `rustls` alone reads 4 KiB at a time, which would make the load generator as busy as the server
/// under test.
const ENCRYPTED_BYTES: usize = 256 * 1024;
/// Limit on the length of a server's INFO.
const INFO_BYTES_MAX: usize = 64 * 1024;

/// A connection that blocks until it has read or written.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, Buffered>>),
}

/// A socket with a buffer for reads.
#[derive(Debug)]
pub(crate) struct Buffered(BufReader<TcpStream>);

impl Stream {
    /// Connects. TLS begins after the server's INFO, as clients do it.
    pub(crate) fn open(server: SocketAddr) -> io::Result<Self> {
        let mut socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        let Some(tls) = Access::current().tls_to(server).map_err(io::Error::other)? else {
            return Ok(Self::Plain(socket));
        };
        skip_info(&mut socket)?;
        let buffered = Buffered(BufReader::with_capacity(ENCRYPTED_BYTES, socket));
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, buffered))))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.sock.0.get_ref(),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            // The flush gives all that is encrypted to the socket.
            Self::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }
}

/// Reads up to the end of INFO, and not a byte of what follows.
fn skip_info(socket: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    for _ in 0..INFO_BYTES_MAX {
        socket.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(());
        }
    }
    Err(io::Error::other("the server sent no INFO"))
}

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
