//! One session without sockets: a component and nodes that send arbitrary bytes, nodes that die at any byte and are replaced, sockets
//! that take few bytes, and time that passes. It checks the promises that hold whatever the others do. Used by the fuzz target
//! `sidecar_session` (`tests/fuzz.d`).

mod proxy_header;

pub use proxy_header::proxy_header;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use standin_registry::{Endpoint, Node, Source};
use standin_wire::limits::FrameLimits;
use standin_wire::{Info, client, server};

use crate::cause::Cause;
use crate::identity::Identity;
use crate::policy::Policy;
use crate::session::Session;
use crate::session::pipes::Pipes;
use crate::settings::{InDoubt, Settings};

/// Small limits, which short inputs reach.
const SETTINGS: &str = "[session]\nbuffer_bytes = 4096\ncontrol_line_bytes_max = 256\ncomponent_pending_bytes_max = 65536\n\
                        subscriptions_max = 20\n[publish]\nconfirm_bytes = 1024\nin_doubt_bytes_max = 65536\n";

/// More than any input.
const NO_LIMITS: FrameLimits = FrameLimits {
    line_bytes_max: 1 << 30,
    payload_bytes_max: 1 << 30,
};

/// Turns in which a session may work on bytes that it has already got.
const TURNS_MAX: usize = 10_000;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let settings = Settings::from_toml(SETTINGS).unwrap_or_else(|error| panic!("{error}"));
    Policy::new(&settings).unwrap_or_else(|error| panic!("{error}"))
});

struct World {
    session: Session,
    pipes: Pipes,
    now: Instant,
    /// What a node has got of a frame that is not complete.
    node_got: Vec<u8>,
    /// What the component has got of a frame that is not complete.
    component_got: Vec<u8>,
    /// Lines of the component, each of which could be a PING, less the PONGs that it has got.
    pings_at_most: usize,
    is_over: bool,
}

/// Runs the session that `input` encodes: one byte of options, then steps. A step is a byte for what happens, two bytes (little endian)
/// for a number, and, if bytes are sent, that many bytes.
///
/// # Panics
/// If a promise is broken: the component and the nodes get only whole frames (S1, S2), no PONG comes unasked (S5), and the timer does not
/// fire again at once.
pub fn session(input: &[u8]) {
    let Some((options, mut rest)) = input.split_first() else {
        return;
    };
    let mut world = World::new(*options);
    while let [step, low, high, after @ ..] = rest {
        let number = u16::from_le_bytes([*low, *high]);
        let (bytes, next) = after.split_at(usize::from(number).min(after.len()));
        rest = after;
        match step % 12 {
            0..=3 => {
                world.component_sends(bytes);
                rest = next;
            }
            4..=6 => {
                world.node_sends(bytes);
                rest = next;
            }
            7 => world.make_room(usize::from(number)),
            8 => world.pass(Duration::from_millis(u64::from(number))),
            9 => world.node_dies(number),
            10 => world.node_comes(number),
            _ => world.command(number),
        }
        world.settle();
        if world.is_over {
            return;
        }
    }
}

impl World {
    fn new(options: u8) -> Self {
        let now = Instant::now();
        let mut policy = POLICY.clone();
        if options & 1 == 1 {
            policy.in_doubt = InDoubt::Resend;
        }
        let identity = Identity {
            host: "10.1.1.1".to_owned(),
            port: 4222,
            mark: "1a2b3c4d".into(),
            session_id: 7,
            listener: 0,
            component_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            credentials: None,
        };
        let room = if options & 2 == 2 { 0 } else { usize::MAX };
        Self {
            session: Session::new(Arc::new(policy), Arc::new(identity), now),
            pipes: Pipes {
                node: Vec::new(),
                node_room: room,
                component: Vec::new(),
                component_room: room,
            },
            now,
            node_got: Vec::new(),
            component_got: Vec::new(),
            pings_at_most: 0,
            is_over: false,
        }
    }

    fn component_sends(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over && self.session.requests().read_component {
            let (piece, rest) = bytes.split_at(self.session.read_bytes_max().min(bytes.len()));
            self.pings_at_most += piece.iter().filter(|byte| **byte == b'\n').count();
            self.session.component_bytes(piece, self.now, &mut self.pipes);
            self.settle();
            bytes = rest;
        }
    }

    fn node_sends(&mut self, bytes: &[u8]) {
        if self.session.keeps_node() && self.session.requests().read_node {
            self.session.node_bytes(bytes, self.now, &mut self.pipes);
        }
    }

    /// Lets both sockets take some more bytes.
    fn make_room(&mut self, bytes: usize) {
        self.pipes.node_room = self.pipes.node_room.saturating_add(bytes);
        self.pipes.component_room = self.pipes.component_room.saturating_add(bytes);
        let requests = self.session.requests();
        if requests.write_component {
            self.session.component_writable(self.now, &mut self.pipes);
        }
        if requests.write_node {
            self.session.node_writable(self.now, &mut self.pipes);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session
            .tick(Duration::ZERO, &Info::default(), self.now, &mut self.pipes);
        self.settle();
        let is_later = self.is_over || self.session.deadline() > self.now;
        assert!(is_later, "{}: the timer fires at once", self.session.state());
    }

    fn node_dies(&mut self, number: u16) {
        let causes = [Cause::Reset, Cause::EndOfStream, Cause::WriteError];
        let cause = causes[usize::from(number) % causes.len()];
        self.session.node_lost(cause, self.now, &mut self.pipes);
    }

    /// Connects another node, if the session wants one. If it leaves its node, it moves once that node is drained.
    fn node_comes(&mut self, number: u16) {
        if self.session.can_switch() {
            self.session.switch(self.now);
            self.settle();
        } else if self.session.needs_dial() && self.session.keeps_node() {
            self.session.next_ready(self.now, &mut self.pipes);
            return;
        }
        if self.is_over || self.session.keeps_node() || !self.session.needs_dial() {
            return;
        }
        let node = Arc::new(Node::at(Endpoint::new("node", 1 + number % 4), Source::Fixed));
        let info = Info {
            auth_required: number & 4 == 4,
            headers: number & 8 == 0,
            max_payload: if number & 16 == 16 { 100 } else { 1 << 20 },
            ..Info::default()
        };
        self.session
            .node_up(node, &info, number & 32 == 32, self.now, &mut self.pipes);
    }

    /// Does one of the rarer things.
    fn command(&mut self, number: u16) {
        let (session, now, pipes) = (&mut self.session, self.now, &mut self.pipes);
        match number % 8 {
            0 => session.component_eof(now, pipes),
            1 => session.component_broke(now, pipes),
            2 => session.release(now, pipes),
            3 => session.leave(),
            4 => session.probe(now, pipes),
            5 => session.shut_down(now, Duration::from_millis(u64::from(number)), pipes),
            6 => session.refused_everywhere(now, pipes),
            _ => session.no_node(
                usize::from(number) % 3,
                number & 64 == 64,
                &Info::default(),
                now,
                pipes,
            ),
        }
    }

    /// Gives the session turns until it has worked on all it has got, and checks what it has written.
    fn settle(&mut self) {
        for turn in 0.. {
            assert!(
                turn < TURNS_MAX,
                "the session does not come to an end of its work"
            );
            self.check_output();
            let (_, ended) = self.session.report();
            self.is_over |= ended.is_some();
            if self.is_over || turn > 0 && !self.session.is_interrupted() {
                return;
            }
            self.session.begin_turn(self.now, &mut self.pipes);
        }
    }

    fn check_output(&mut self) {
        self.node_got.append(&mut self.pipes.node);
        let mut rest = &self.node_got[..];
        while let Some((_, length)) = client::decode(rest, NO_LIMITS).expect("a node gets frames") {
            rest = &rest[length..];
        }
        self.node_got = rest.to_vec();
        if !self.session.keeps_node() {
            self.node_got.clear();
        }
        self.component_got.append(&mut self.pipes.component);
        let mut rest = &self.component_got[..];
        while let Some((frame, length)) = server::decode(rest, NO_LIMITS).expect("the component gets frames")
        {
            if matches!(frame, server::Frame::Pong) {
                let left = self.pings_at_most.checked_sub(1);
                self.pings_at_most = left.expect("no PONG comes unasked");
            }
            rest = &rest[length..];
        }
        self.component_got = rest.to_vec();
    }
}
