//! Sessions of several clients that send arbitrary bytes, without sockets, and the invariants that must hold. Used by the fuzz target
//! `broker_clients` (`tests/fuzz.d`) and by the test in this file.

mod hello;
mod query;
mod route;

pub use hello::hello;
pub use query::query;
pub use route::route;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use standin_wire::limits::FrameLimits;
use standin_wire::server;

use crate::client::Client;
use crate::client_info::ClientInfo;
use crate::outbox::Outbox;
use crate::router::Router;
use crate::settings::Settings;
use crate::shared::Shared;

const CLIENTS: usize = 3;
const LINE_BYTES_MAX: usize = 256;
const PAYLOAD_BYTES_MAX: usize = 2000;
const SUBSCRIPTIONS_MAX: usize = 20;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let text = format!(
        "port = -1\n[limits]\nmax_control_line = {LINE_BYTES_MAX}\nmax_payload = {PAYLOAD_BYTES_MAX}\n\
         max_subscriptions = {SUBSCRIPTIONS_MAX}\n[process]\nworkers = 1\n"
    );
    Settings::from_toml(&text).unwrap_or_else(|error| panic!("{error}"))
});

struct Session {
    client_info: Arc<ClientInfo>,
    client: Client,
    buffer: Vec<u8>,
}

struct World {
    shared: Arc<Shared>,
    router: Router,
    sessions: Vec<Session>,
    next_id: u64,
}

/// Runs the sessions that `input` encodes: one byte of options, then records. A record has one byte for the client and the size of its
/// reads, two bytes (little endian) for the number of bytes that the client sends, and these bytes.
///
/// # Panics
/// If an invariant is violated: the output is whole frames, limits are enforced, and no subscription is left at the end.
pub fn sessions(input: &[u8]) {
    let Some((options, mut rest)) = input.split_first() else {
        return;
    };
    let mut world = World::new(options & 1 == 1);
    while let [choice, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (bytes, next) = after.split_at(length);
        let piece = match usize::from(*choice) / CLIENTS {
            0 => length.max(1),
            piece => piece,
        };
        for piece in bytes.chunks(piece) {
            world.send(usize::from(*choice) % CLIENTS, piece);
        }
        rest = next;
    }
    for number in 0..CLIENTS {
        world.end(number);
    }
    let left = world.shared.interest.local.len();
    assert_eq!(left, 0, "subscriptions are left after all clients ended");
}

impl World {
    fn new(needs_login: bool) -> Self {
        let mut settings = SETTINGS.clone();
        if needs_login {
            settings.authorization.user = "a".to_owned();
            settings.authorization.password = "b".into();
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4222));
        let mut world = Self {
            shared: Arc::new(Shared::new(settings, address).unwrap_or_else(|error| panic!("{error}"))),
            router: Router::new(0, 1000),
            sessions: Vec::new(),
            next_id: 1,
        };
        world.sessions = (0..CLIENTS).map(|_| world.session()).collect();
        world
    }

    fn session(&mut self) -> Session {
        let outbox = Arc::new(Outbox::new(self.next_id, None, 1));
        self.next_id += 1;
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let client_info = Arc::new(ClientInfo::new(outbox, peer));
        let policy = self.shared.policy.load_full();
        Session {
            client: Client::new(
                Arc::clone(&self.shared),
                Arc::clone(&client_info),
                policy,
                "".into(),
                None,
            ),
            client_info,
            buffer: Vec::new(),
        }
    }

    fn send(&mut self, number: usize, bytes: &[u8]) {
        let session = &mut self.sessions[number];
        session.buffer.extend_from_slice(bytes);
        self.router.begin_turn();
        let taken = session.client.take(&session.buffer, &mut self.router);
        session.client.count(&self.router);
        let subscriptions = session.client_info.subscriptions().len();
        assert!(
            subscriptions <= SUBSCRIPTIONS_MAX,
            "{subscriptions} subscriptions of a client"
        );
        if let Ok(taken) = taken {
            session.buffer.drain(..taken);
            let buffered = session.buffer.len();
            assert!(
                buffered <= LINE_BYTES_MAX + PAYLOAD_BYTES_MAX + 4,
                "{buffered} bytes"
            );
        } else {
            self.end(number);
        }
        self.check_staged();
        self.router.stage.flush();
    }

    fn end(&mut self, number: usize) {
        self.sessions[number].client.end();
        assert_eq!(self.sessions[number].client_info.subscriptions().len(), 0);
        self.sessions[number] = self.session();
    }

    /// Checks that the staged output of each client is whole frames.
    fn check_staged(&mut self) {
        for session in &self.sessions {
            let staged = self.router.stage.of(&session.client_info.outbox);
            let mut bytes = Vec::new();
            staged.parts(|part, _| bytes.extend_from_slice(part));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match server::decode(rest, FrameLimits::SERVER) {
                    Ok(Some((_, length))) => rest = &rest[length..],
                    wrong => panic!("{wrong:?} in the output: {}", rest.escape_ascii()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::seeds;

    const SEEDS: u64 = 600;

    /// Returns a frame as clients send it, sometimes damaged.
    fn frame(rng: &mut SmallRng) -> Vec<u8> {
        let subjects = ["a", "a.b", "a.*", ">", "a.>", "b", "in.1", "a..b", "", ">.a", "*"];
        let subject = subjects[rng.random_range(0..subjects.len())];
        let (sid, max) = (rng.random_range(0..30), rng.random_range(0..4));
        let size = [0, 1, 5, 300, 1999, 2000, 2001][rng.random_range(0..7)];
        let payload = "x".repeat(size);
        let head = "NATS/1.0\r\na: b\r\n\r\n";
        let total = head.len() + size;
        let line = match rng.random_range(0..14) {
            0 => "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"user\":\"a\",\"pass\":\"b\"}\r\n".to_owned(),
            1 => format!("CONNECT {{\"echo\":{},\"user\":\"a\",\"pass\":\"b\"}}\r\n", max % 2 == 0),
            2 | 3 => format!("SUB {subject} {sid}\r\n"),
            4 => format!("SUB {subject} q{max} {sid}\r\n"),
            5 => format!("UNSUB {sid}\r\n"),
            6 => format!("UNSUB {sid} {max}\r\n"),
            7 | 8 => format!("PUB {subject} {size}\r\n{payload}\r\n"),
            9 => format!("PUB {subject} in.1 {size}\r\n{payload}\r\n"),
            10 => format!("HPUB {subject} {} {total}\r\n{head}{payload}\r\n", head.len()),
            11 => "PING\r\n".to_owned(),
            12 => format!("{}\r\n", "y".repeat(rng.random_range(0..600))),
            _ => "PONG\r\n+OK\r\n".to_owned(),
        };
        let mut bytes = line.into_bytes();
        // One of 12 frames is damaged: a byte changed, removed or inserted.
        if rng.random_range(0..12) == 0 && !bytes.is_empty() {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = rng.random(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.random()),
            }
        }
        bytes
    }

    #[test]
    fn invariants_hold_for_random_sessions() {
        seeds::play(0..SEEDS, |seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut input = vec![rng.random_range(0..8) / 7];
            for _ in 0..rng.random_range(1..60) {
                let mut bytes = Vec::new();
                for _ in 0..rng.random_range(1..5) {
                    bytes.extend(frame(&mut rng));
                }
                let cut = [0, 0, 1, 7, 80][rng.random_range(0..5)];
                input.push(cut * CLIENTS as u8 + rng.random_range(0..CLIENTS as u8));
                input.extend((bytes.len() as u16).to_le_bytes());
                input.extend(bytes);
            }
            sessions(&input);
        });
    }
}
