//! The session of one client: keep-alive, deadlines, INFO, and pauses in the processing of the client's input.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use standin_daemon::linger;
use standin_tls::certificate::CertificateNames;
use standin_tls::stream::Stream;
use standin_wire::encode;
use tokio::net::TcpStream;
use tracing::warn;

use super::{Client, tls};
use crate::client_info::ClientInfo;
use crate::close_reason::CloseReason;
use crate::end_log;
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::router::Router;
use crate::shared::{Advertised, Shared};
use crate::shell::{self, Session, Shell};
use crate::turn;

/// Time from CONNECT to the first PING; up to a fifth is added, as in `nats-server`. This PING measures the round-trip time. It also
/// makes some old client libraries process a pending `-ERR`: they do so only when more bytes arrive.
const FIRST_PING: Duration = Duration::from_secs(2);
/// Time for which no input of a publisher is processed when a subscriber cannot keep up.
const STALL: Duration = Duration::from_millis(5);

/// State of the session of one client.
struct ClientSession {
    shared: Arc<Shared>,
    client_info: Arc<ClientInfo>,
    outbox: Arc<Outbox>,
    /// The address that the client has connected to.
    local: Option<SocketAddr>,
    client: Client,
    policy: Arc<Policy>,
    /// Content of the last INFO.
    advertised: Advertised,
    /// The last INFO did not name all nodes, or something in it has changed. A client that accepts INFO at any time gets it again after
    /// CONNECT.
    owes_info: bool,
    started: Instant,
    heard: Instant,
    /// Time at which the first PING after CONNECT is due. `None`: before CONNECT, or the PING was sent.
    first_ping: Option<Instant>,
    was_connected: bool,
    /// The client has not logged in: it has sent no complete frame, or must still send CONNECT with credentials.
    is_half_open: bool,
    pinged: Option<Instant>,
    pings: u32,
    /// No input is processed before this time, because a subscriber cannot keep up.
    stalled_until: Option<Instant>,
}

/// Serves one client from INFO to the end of its connection.
pub(crate) async fn run(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, id: u64) -> CloseReason {
    let local = socket.local_addr().ok();
    let nonce = shared.policy.load().access.new_nonce();
    let (stream, informed) = match &shared.policy.load_full().tls {
        None => (Stream::from(socket), None),
        Some(tls) => {
            let advertised = shared.advertised();
            let (line, is_whole) = shared.info(advertised, id, (peer, local), &nonce, true);
            match Box::pin(tls::begin(tls, socket, &line)).await {
                Ok((stream, was_sent)) => (stream, was_sent.then_some((advertised, !is_whole))),
                Err(error) => {
                    warn!(client = id, %peer, "TLS handshake failed: {error}");
                    return CloseReason::TlsHandshake;
                }
            }
        }
    };
    let now = Instant::now();
    let certificate = stream.peer_certificate();
    let certificate_names = certificate.map(|certificate| Box::new(CertificateNames::of(&certificate)));
    let socket = Arc::new(stream);
    let outbox = Arc::new(Outbox::new(id, Some(Arc::clone(&socket)), shared.workers));
    let client_info = Arc::new(ClientInfo::new(Arc::clone(&outbox), peer));
    // The revision is read before the policy, so that a change in between is noticed later.
    let revision = shared.revision();
    shared.clients.insert(Arc::clone(&client_info));
    let policy = shared.policy.load_full();
    let mut session = ClientSession {
        client: Client::new(
            Arc::clone(&shared),
            Arc::clone(&client_info),
            Arc::clone(&policy),
            nonce,
            certificate_names,
        ),
        advertised: informed.map_or_else(|| shared.advertised(), |(advertised, _)| advertised),
        owes_info: informed.is_some_and(|(_, owes)| owes),
        policy: Arc::clone(&policy),
        local,
        started: now,
        heard: now,
        first_ping: None,
        was_connected: false,
        is_half_open: true,
        pinged: None,
        pings: 0,
        stalled_until: None,
        outbox: Arc::clone(&outbox),
        client_info,
        shared: Arc::clone(&shared),
    };
    if informed.is_none() {
        session.inform(true);
    }
    let mut shell = Shell::new(session, (outbox, socket), shared, (revision, policy), &[]);
    let reason = shell.run().await;
    shell.session.end(reason);
    Box::pin(close(shell, reason)).await;
    reason
}

impl Session for ClientSession {
    fn renew(&mut self, policy: &Arc<Policy>) -> Result<(), CloseReason> {
        self.policy = Arc::clone(policy);
        let client = &mut self.client;
        turn::between(|router| client.set_policy(Arc::clone(policy), router)).unwrap_or(Ok(()))?;
        let advertised = self.shared.advertised();
        if advertised != self.advertised {
            self.advertised = advertised;
            self.owes_info = true;
            self.inform_again();
        }
        Ok(())
    }

    /// No input is processed while a subscriber of the client's messages cannot keep up, or while a PONG to the client waits.
    fn held_until(&mut self) -> Option<Instant> {
        if self.outbox.take_stall() {
            self.stalled_until = Some(Instant::now() + STALL);
            self.shared.stalls.fetch_add(1, Relaxed);
        }
        if let Some(until) = self.stalled_until {
            if Instant::now() < until {
                return Some(until);
            }
            self.stalled_until = None;
        }
        if self.client.may_be_held()
            && let Some(until) = self.client.held_until(Instant::now())
        {
            return Some(until);
        }
        let is_started = self.client.flush.is_started();
        is_started
            .then(|| self.client.waits_until(Instant::now()))
            .flatten()
    }

    fn take(&mut self, bytes: &[u8], router: &mut Router) -> Result<usize, CloseReason> {
        let taken = self.client.take(bytes, router);
        self.client.count(router);
        let is_active = matches!(taken, Ok(taken) if taken > 0 || self.client.is_connected());
        if self.is_half_open && is_active && !self.is_unknown() {
            self.is_half_open = false;
            self.shared.admission.logged_in(self.outbox.id);
        }
        taken
    }

    /// While the PONG waits, or the check of a password, the frames after the PING or the CONNECT wait too.
    fn wants_turn(&self) -> bool {
        self.client.flush.is_started() || self.client.is_logging_in() || self.client.is_slowed()
    }

    fn end_turn(&mut self, received: usize, now: Instant) {
        if received > 0 {
            self.heard(now);
        }
        if self.client.is_connected() && !self.was_connected {
            self.was_connected = true;
            let wait = FIRST_PING.min(self.policy.ping_interval);
            self.first_ping = Some(now + wait.mul_f64(rand::random_range(1.0..1.2)));
        }
        self.inform_again();
    }

    fn tick(&mut self, now: Instant) -> Option<CloseReason> {
        let policy = &self.policy;
        let is_late =
            self.is_unknown() && !self.client.is_logging_in() && now >= self.started + policy.auth_timeout;
        if is_late || self.client.login_expired(now) {
            return Some(CloseReason::AuthenticationTimeout);
        }
        if self.ping_due().is_some_and(|due| now >= due) {
            self.pinged = Some(now);
            self.first_ping = None;
            if self.pings >= policy.ping_max {
                return Some(CloseReason::Stale);
            }
            self.pings += 1;
            turn::send(&self.outbox, encode::PING);
        }
        None
    }

    fn due(&self, now: Instant) -> Instant {
        // While a PONG waits, no PING is due. The shell wakes at the end of the wait.
        let ping = self.ping_due().unwrap_or(now + self.policy.ping_interval);
        if self.is_unknown() {
            return ping.min(self.started + self.policy.auth_timeout);
        }
        ping
    }
}

impl ClientSession {
    /// Returns whether the client must still send a CONNECT with credentials.
    fn is_unknown(&self) -> bool {
        self.policy.access.is_required() && !self.client.is_connected()
    }

    /// Sends INFO again if that is due and the client accepts it.
    fn inform_again(&mut self) {
        if self.owes_info && self.client_info.accepts_info.load(Relaxed) {
            self.inform(false);
        }
    }

    fn inform(&mut self, is_first: bool) {
        let (id, peer) = (self.outbox.id, self.client_info.peer);
        let (line, is_whole) = self.shared.info(
            self.advertised,
            id,
            (peer, self.local),
            &self.client.nonce,
            is_first,
        );
        self.owes_info = !is_whole;
        turn::send(&self.outbox, line.as_bytes());
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.client_info.stats.heard(now);
        self.pings = 0;
        if self.client.took_pong()
            && let Some(pinged) = self.pinged
        {
            self.client_info
                .stats
                .set_rtt(now.saturating_duration_since(pinged));
        }
    }

    /// Returns the time at which the next PING is due. `None` while a PONG waits for other nodes, because a client takes the first frame
    /// after its own PING for the answer, and while a publish of the client waits because of a rate, because a PONG after it would not be read.
    fn ping_due(&self) -> Option<Instant> {
        let interval = self.policy.ping_interval;
        let due = match (self.first_ping, self.pinged) {
            (Some(due), _) => due,
            (None, None) => self.started + interval,
            (None, Some(pinged)) => pinged.max(self.heard) + interval,
        };
        (!self.client.flush.is_started() && !self.client.is_slowed()).then_some(due)
    }

    /// Ends the client's subscriptions and sends the `-ERR` for `reason`, if it has one.
    fn end(&mut self, reason: CloseReason) {
        self.outbox.close(reason);
        end_log::closed(reason, &self.client_info, &self.policy);
        let subscriptions = self.client.end();
        self.shared.clients.remove(self.outbox.id, reason, subscriptions);
        if let Some(text) = reason.text() {
            let mut line = Vec::new();
            encode::err(text.as_bytes(), &mut line);
            turn::send(&self.outbox, &line);
        }
        // When a node stops, its routes are closed after its last client. By then, the client's last messages must be in the routes'
        // queues.
        turn::flush();
    }
}

/// Writes the pending bytes, shuts down the sending side, and discards further input, all within a time limit.
async fn close(shell: Shell<ClientSession>, reason: CloseReason) {
    let Shell { session, socket, .. } = shell;
    let is_broken = reason.is_broken();
    if !is_broken {
        // A client that has closed only its sending side may still have to read much.
        let timeout = match reason {
            CloseReason::ClientClosed => session.policy.write_deadline,
            _ => linger::LINGER,
        };
        shell::write_rest(&session.outbox, timeout).await;
    }
    // Releases the outbox's hold on the socket.
    drop(session);
    if let Some(stream) = Arc::into_inner(socket).filter(|_| !is_broken) {
        linger::close(stream).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::settings::Settings;

    /// The monitoring pages keep the closed client, but not its socket.
    #[tokio::test]
    async fn the_connection_of_a_client_that_panicked_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut far = TcpStream::connect(address).await.unwrap();
        let (near, peer) = listener.accept().await.unwrap();
        let settings = Settings::from_toml("[process]\nworkers = 1\n").unwrap();
        let shared = Arc::new(Shared::new(settings, address).unwrap());
        turn::begin(0, &shared);
        // Like a panic, the timeout drops the session.
        let serving = run(Arc::clone(&shared), near, peer, 1);
        assert!(timeout(Duration::from_millis(1), serving).await.is_err());
        shared.clients.remove(1, CloseReason::Panicked, 0);
        assert_eq!(shared.clients.closed().len(), 1);
        let mut received = Vec::new();
        let end = timeout(Duration::from_secs(5), far.read_to_end(&mut received)).await;
        assert!(end.is_ok(), "the connection is still open");
    }
}
