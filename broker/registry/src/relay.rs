//! One connection to a ZooKeeper server. The client library uses it through a loopback address.
//!
//! The library dials without a timeout. When a server accepts and closes, the library dials again at once, tens of
//! thousands of times in a few seconds. So the library never dials a server. The relay makes the connection, with a
//! timeout, and joins the library's socket to it through a listener that accepts one connection and is then closed. A
//! second dial of the library is refused, and after a refusal the library waits before it dials again. During this wait
//! the relay sees the end of the first connection, and the client is dropped. So only `session_loop.rs` decides how often
//! servers are dialled.
//!
//! The library allocates memory for an answer of any length. So the relay ends a connection over which a longer answer than
//! [`ANSWER_BYTES_MAX`] comes, such as a list of children with very long names.
//!
//! The library always requests a new session. If there is a session to resume, the relay writes it into the request
//! (`session_key.rs`).

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy, copy_buf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::session_key::{SessionAnswer, SessionKey, read_message};

/// Limit for the library to connect to the loopback listener.
const ACCEPT_TIMEOUT_MS: u64 = 2_000;

/// Longest answer of a server, in bytes. A list of 100,000 children has about 2 MB.
const ANSWER_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// An open connection. Dropping it closes it.
pub(crate) struct Relay {
    /// The loopback address to which the library connects, once.
    pub(crate) address: SocketAddr,
    task: JoinHandle<String>,
    opened: oneshot::Receiver<SessionAnswer>,
    /// Reason for the end of the connection, once it has ended.
    ended: Option<String>,
}

impl Relay {
    /// Connects to `server` within `limit`. With a key, the connection resumes that session.
    pub(crate) async fn open(
        server: SocketAddr,
        limit: Duration,
        key: Option<SessionKey>,
    ) -> Result<Self, String> {
        let remote = match tokio::time::timeout(limit, TcpStream::connect(server)).await {
            Ok(Ok(remote)) => remote,
            Ok(Err(error)) => return Err(format!("cannot connect: {error}")),
            Err(_) => return Err(format!("no connection within {} ms", limit.as_millis())),
        };
        let (listener, address) = listen()
            .await
            .map_err(|error| format!("cannot listen on the loopback: {error}"))?;
        let (tell, opened) = oneshot::channel();
        let task = tokio::spawn(async move {
            match relay(remote, listener, key, tell).await {
                Ok(never) => match never {},
                Err(reason) => reason,
            }
        });
        Ok(Self {
            address,
            task,
            opened,
            ended: None,
        })
    }

    /// Waits for the server's answer to the library's request for a session. May be called only once.
    pub(crate) async fn opened(&mut self, limit: Duration) -> Result<SessionAnswer, String> {
        match tokio::time::timeout(limit, &mut self.opened).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(_)) => Err(self.ended().await),
            Err(_) => Err(format!("no session within {} ms", limit.as_millis())),
        }
    }

    /// Waits for the end of the connection and returns its reason. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> String {
        if let Some(reason) = &self.ended {
            return reason.clone();
        }
        let reason = match (&mut self.task).await {
            Ok(reason) => reason,
            Err(error) => format!("the relay stopped: {error}"),
        };
        self.ended.insert(reason).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let loopbacks = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ];
    let listener = TcpListener::bind(&loopbacks[..]).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn relay(
    mut remote: TcpStream,
    listener: TcpListener,
    key: Option<SessionKey>,
    tell: oneshot::Sender<SessionAnswer>,
) -> Result<Infallible, String> {
    let limit = Duration::from_millis(ACCEPT_TIMEOUT_MS);
    let mut local = match tokio::time::timeout(limit, listener.accept()).await {
        Ok(Ok((local, _))) => local,
        Ok(Err(error)) => return Err(format!("the loopback failed: {error}")),
        Err(_) => return Err("the client did not connect to the loopback".to_owned()),
    };
    drop(listener);
    // Requests and answers are small, and the next step waits for each.
    let _ = remote.set_nodelay(true);
    let _ = local.set_nodelay(true);
    let answer = request_session(&mut local, &mut remote, key.as_ref()).await?;
    let is_expired = matches!(answer, SessionAnswer::Expired);
    let _ = tell.send(answer);
    if is_expired {
        return Err("the session has expired".to_owned());
    }
    let (mut from_remote, mut to_remote) = remote.split();
    let (mut from_local, mut to_local) = local.split();
    // When one side closes, both connections end, because a half-closed session cannot be used.
    Err(tokio::select! {
        reason = pass_answers(&mut from_remote, &mut to_local) => reason,
        request = copy(&mut from_local, &mut to_remote) => match request {
            Ok(_) => "the client closed the connection".to_owned(),
            Err(error) => format!("the connection failed: {error}"),
        },
    })
}

/// Passes on the server's answers. Returns the reason for the end of the connection.
async fn pass_answers(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> String {
    let mut from = BufReader::new(from);
    let passing = async {
        loop {
            let length = from.read_u32().await?;
            if length > ANSWER_BYTES_MAX {
                return Ok::<u32, io::Error>(length);
            }
            to.write_u32(length).await?;
            copy_buf(&mut (&mut from).take(length.into()), to).await?;
        }
    };
    match passing.await {
        Ok(length) => format!(
            "the server's answer has {length} bytes, more than {ANSWER_BYTES_MAX}; are there too many znodes below the path, or \
             znodes with too long names?"
        ),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        Err(error) => format!("the connection failed: {error}"),
    }
}

/// Passes on the library's request for a session, and the server's answer if it grants one. With a key, its session is
/// written into the request.
async fn request_session(
    local: &mut TcpStream,
    remote: &mut TcpStream,
    key: Option<&SessionKey>,
) -> Result<SessionAnswer, String> {
    let failed = |error| format!("the connection failed: {error}");
    let mut request = read_message(local)
        .await
        .ok_or("the client closed the connection")?;
    if let Some(key) = key {
        key.write_into(&mut request)
            .ok_or("the client did not request a new session")?;
    }
    remote.write_all(&request).await.map_err(failed)?;
    let message = read_message(remote)
        .await
        .ok_or("the server closed the connection without an answer (no quorum?)")?;
    let answer = SessionAnswer::parse(&message).ok_or("the answer is not that of a ZooKeeper server")?;
    if matches!(answer, SessionAnswer::Granted(_)) {
        local.write_all(&message).await.map_err(failed)?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_above_the_limit_ends_the_connection() {
        let good = [&[0, 0, 0, 3][..], b"abc"].concat();
        let too_long = (ANSWER_BYTES_MAX + 1).to_be_bytes();
        let mut passed = Vec::new();
        let answers = [&good[..], &good, &too_long, b"..."].concat();
        let reason = pass_answers(&mut &answers[..], &mut passed).await;
        assert!(reason.contains("16777217 bytes"), "{reason}");
        assert_eq!(passed, [&good[..], &good].concat());
        let reason = pass_answers(&mut &good[..5], &mut passed).await;
        assert!(reason.contains("closed"), "{reason}");
    }
}
