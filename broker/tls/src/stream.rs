//! [`Stream`]: a TCP connection, with or without TLS.
//!
//! Its methods take `&self` and never wait, so any thread can write while another one reads. The TLS state is a value under a lock,
//! which is held while bytes are encrypted and while a non-blocking system call takes or gives them. A plain connection has no lock.
//!
//! Bytes that [`Stream::try_write`] has taken are encrypted, and a full socket may not take all of them at once. The owner then calls
//! [`Stream::poll_flush`] until nothing is left ([`Stream::has_unsent`]).

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Maximum number of encrypted bytes read in one system call.
const READ_BYTES: usize = 64 * 1024;
/// Limit on bytes in the TLS state: encrypted, but not taken by the socket.
const UNSENT_BYTES_MAX: usize = 128 * 1024;

/// Decrypted bytes in the TLS state above which it takes no more: the limit of `rustls`.
const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    /// Encrypted bytes of one read.
    static CIPHERTEXT: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A TCP connection, with or without TLS.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    state: Mutex<State>,
    /// Decrypted bytes wait to be read.
    has_plaintext: AtomicBool,
    /// Encrypted bytes wait for the socket.
    has_unsent: AtomicBool,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    /// Encrypted bytes that were read and not decrypted yet.
    encrypted: Vec<u8>,
    /// The socket has ended.
    has_ended: bool,
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }
}

impl Stream {
    pub(crate) async fn shake_hands(
        socket: TcpStream,
        connection: Connection,
        received: &[u8],
    ) -> io::Result<Self> {
        let mut state = State::new(connection, received);
        loop {
            while !state.flush(&socket)? {
                socket.writable().await?;
            }
            if !state.connection.is_handshaking() {
                break;
            }
            match state.decrypt_more(&socket, READ_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
                Ok(()) if state.has_ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                decrypted => decrypted?,
            }
        }
        Ok(Self {
            socket,
            tls: Some(Box::new(Tls::new(state))),
        })
    }

    /// Begins TLS on a connection that has none yet. Reads and writes make the handshake from here on: until it is complete, a write
    /// keeps a limited number of bytes, and a read gives none.
    pub(crate) fn start_tls(&mut self, connection: Connection) {
        self.tls = Some(Box::new(Tls::new(State::new(connection, &[]))));
    }

    /// Returns whether a handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.lock().connection.is_handshaking())
    }

    /// Returns the socket of a connection without TLS.
    #[must_use]
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Returns the socket, for its addresses and options.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Returns whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the verified certificate of the peer, if it sent one.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let state = self.tls.as_ref()?.lock();
        Some(
            state
                .connection
                .peer_certificates()?
                .first()?
                .clone()
                .into_owned(),
        )
    }

    /// Returns whether the handshake continued an earlier session, which needs no signature.
    #[must_use]
    pub fn has_resumed(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.lock().connection.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Returns `Ready` if a read may give bytes. Otherwise the task is woken when it may.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            Some(tls) if tls.has_plaintext.load(Relaxed) => Poll::Ready(Ok(())),
            _ => self.socket.poll_read_ready(context),
        }
    }

    /// Returns `Ready` if the socket may take bytes. Otherwise the task is woken when it may.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(context)
    }

    /// Reads the available bytes. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there are none now, the error of the socket, or `InvalidData` for bytes that are not valid TLS.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => read(&self.socket, buffer),
            Some(tls) => tls.read(&self.socket, buffer),
        }
    }

    /// Reads the available bytes. Registers the task if there are none.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.tls.is_none() {
            // The library's own read clears the readiness of an emptied socket at less cost than `try_read` can.
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
            return Poll::Ready(Ok(buffer.filled().len()));
        }
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Writes as many bytes as are taken now.
    ///
    /// # Errors
    /// `WouldBlock` if none are taken, or the error of the socket.
    pub fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.tls, parts) {
            // `send` costs the kernel less than `writev`.
            (None, [part]) => self.socket.try_write(part),
            (None, _) => self.socket.try_write_vectored(parts),
            (Some(tls), _) => tls.write(&self.socket, parts),
        }
    }

    /// Returns whether encrypted bytes wait for the socket.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent.load(Relaxed))
    }

    /// Gives the encrypted bytes to the socket. Registers the task if some are left.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &self.tls else {
            return Poll::Ready(Ok(()));
        };
        while self.has_unsent() {
            ready!(self.socket.poll_write_ready(context))?;
            tls.flush(&mut tls.lock(), &self.socket)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the connection away from its runtime, so that another one can continue it.
    ///
    /// # Errors
    /// The error of the system.
    pub fn detach(self) -> io::Result<Detached> {
        let Self { socket, tls } = self;
        Ok(Detached {
            socket: socket.into_std()?,
            tls,
        })
    }
}

/// A connection that belongs to no runtime.
#[derive(Debug)]
pub struct Detached {
    /// The socket.
    pub socket: StdStream,
    tls: Option<Box<Tls>>,
}

impl Detached {
    /// Returns the connection for the runtime in which this is called.
    ///
    /// # Errors
    /// The error of the system.
    pub fn attach(self) -> io::Result<Stream> {
        let socket = TcpStream::from_std(self.socket)?;
        Ok(Stream {
            socket,
            tls: self.tls,
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(Self::poll_read(&mut self, context, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            match self.try_write(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(&self, context)
    }

    /// Tells the peer that nothing more comes, first in TLS, then in TCP.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &self.tls {
            let mut state = tls.lock();
            state.connection.send_close_notify();
            tls.flush(&mut state, &self.socket)?;
        }
        ready!(Self::poll_flush(&self, context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl Tls {
    fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            // Bytes may have come with the end of a handshake.
            has_plaintext: AtomicBool::new(true),
            has_unsent: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let read = state.read(socket, buffer);
        // A full buffer may not have taken everything.
        let has_plaintext = matches!(read, Ok(count) if count == buffer.len()) || !state.encrypted.is_empty();
        self.has_plaintext.store(has_plaintext, Relaxed);
        self.note_unsent(&state);
        read
    }

    fn write(&self, socket: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.lock();
        let written = state.write(socket, parts);
        self.note_unsent(&state);
        written
    }

    fn flush(&self, state: &mut State, socket: &TcpStream) -> io::Result<()> {
        let flushed = state.flush(socket);
        self.note_unsent(state);
        flushed.map(|_| ())
    }

    fn note_unsent(&self, state: &State) {
        self.has_unsent.store(state.connection.wants_write(), Relaxed);
    }
}

impl State {
    fn new(mut connection: Connection, received: &[u8]) -> Self {
        connection.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Self {
            connection,
            encrypted: received.to_vec(),
            has_ended: false,
        }
    }

    /// Reads decrypted bytes; decrypts more only if there are none. So one call reads the socket a few times at most.
    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.decrypt_more(socket, buffer.len())?
                }
                // The peer closed the socket without the close of TLS. A frame shows by itself whether it is complete.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
        }
    }

    /// Decrypts the encrypted bytes at hand, or those that one read of the socket gives: at most `bytes_max`, so that the reader has
    /// room for them.
    fn decrypt_more(&mut self, socket: &TcpStream, bytes_max: usize) -> io::Result<()> {
        if !self.encrypted.is_empty() {
            let encrypted = std::mem::take(&mut self.encrypted);
            return self.decrypt(&encrypted, socket);
        }
        CIPHERTEXT.with_borrow_mut(|buffer| {
            let end = buffer.len().min(bytes_max);
            let count = read(socket, &mut buffer[..end])?;
            if count == 0 {
                self.has_ended = true;
                self.connection.read_tls(&mut io::empty())?;
            }
            self.decrypt(&buffer[..count], socket)
        })
    }

    /// Decrypts `bytes`. Keeps those for which the TLS state has no room before its decrypted bytes are read.
    fn decrypt(&mut self, mut bytes: &[u8], socket: &TcpStream) -> io::Result<()> {
        loop {
            let state = self.connection.process_new_packets().map_err(|error| {
                // The alert says to the peer what was wrong.
                let _ = self.flush(socket);
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
            if bytes.is_empty() {
                break;
            }
            if state.plaintext_bytes_to_read() >= PLAINTEXT_BYTES_MAX {
                self.encrypted.extend_from_slice(bytes);
                break;
            }
            self.connection.read_tls(&mut bytes)?;
        }
        // An answer of TLS itself, such as a new key.
        self.flush(socket).map(|_| ())
    }

    /// Encrypts `parts`, as much as fits, and gives them to the socket. Returns the number of bytes taken.
    fn write(&mut self, socket: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(socket)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.connection.writer().write_vectored(parts)?;
        self.flush(socket)?;
        Ok(written)
    }

    /// Gives encrypted bytes to the socket. Returns whether none are left.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut NonBlocking(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => written?,
            };
        }
        Ok(true)
    }
}

/// Reads from the socket. A read that does not fill the buffer has emptied the socket, so its readiness is cleared. This saves a read
/// that would find nothing. Later bytes set the readiness again; the end of the stream is not cleared.
fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let count = socket.try_read(buffer)?;
    if count > 0 && count < buffer.len() {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // The result is the error of `nothing`.
        let _ = socket.try_io(Interest::READABLE, nothing);
    }
    Ok(count)
}

/// A socket as `rustls` writes to it.
struct NonBlocking<'s>(&'s TcpStream);

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
