//! The test bench: a session in virtual time, between two scripted sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::{Node, Source};
use standin_wire::Info;

use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::identity::Identity;
use crate::policy::Policy;
use crate::session::pipes::Pipes;
use crate::session::{EndReason, LossOrigin, Session, SessionEvent};

/// Returns a node of which only the address is known.
pub(crate) fn node(address: &str) -> Node {
    Node::at(address.parse().unwrap(), Source::Fixed)
}

/// Returns the default policy of `deploy/proxy.toml`.
pub(crate) fn policy() -> Policy {
    Policy::new(&crate::settings::Settings::from_toml("").unwrap()).unwrap()
}

pub(crate) fn identity() -> Identity {
    Identity {
        host: "10.1.1.1".to_owned(),
        port: 4222,
        mark: "1a2b3c4d".into(),
        session_id: 7,
        component_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: 0,
        credentials: None,
    }
}

/// A session, its two sockets, and its time.
pub(crate) struct Bench {
    pub(crate) session: Session,
    pub(crate) pipes: Pipes,
    pub(crate) now: Instant,
}

pub(crate) const QUIET: &str = "CONNECT {\"verbose\":false}\r\n";
pub(crate) const QUIET_SENT: &str = "CONNECT {\"protocol\":1,\"verbose\":false}\r\nPING\r\n";

impl Bench {
    pub(crate) fn new(policy: Policy) -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::new(policy), Arc::new(identity()), now);
        Self {
            session,
            pipes: Pipes {
                node: Vec::new(),
                node_room: usize::MAX,
                component: Vec::new(),
                component_room: usize::MAX,
            },
            now,
        }
    }

    /// Returns a session whose component has sent CONNECT and whose node has answered. The pipes are empty.
    pub(crate) fn connected(policy: Policy) -> Self {
        let mut bench = Self::unconnected(policy);
        bench.component(QUIET);
        bench.node("PONG\r\n");
        bench.sent();
        bench.seen();
        bench.events();
        bench
    }

    /// Returns a session whose component has sent CONNECT without credentials, and whose node gets those of the sidecar. With
    /// `is_joined`, the node has answered.
    pub(crate) fn connected_with_held_credentials(is_joined: bool) -> Self {
        let settings =
            crate::settings::Settings::from_toml("[credentials]\nuser = \"u\"\npassword = \"p\"\n").unwrap();
        let mut bench = Self::unconnected(Policy::new(&settings).unwrap());
        bench.component(QUIET);
        assert!(bench.sent().contains("\"user\":\"u\""));
        if is_joined {
            bench.node("PONG\r\n");
        }
        bench.seen();
        bench.events();
        bench
    }

    /// Returns a session that has a node. Its component has got INFO and sent nothing yet. The pipes are empty.
    pub(crate) fn unconnected(policy: Policy) -> Self {
        let mut bench = Self::new(policy);
        bench.node_up();
        bench.seen();
        bench
    }

    /// Lets the next program go on with the session.
    pub(crate) fn swap(&mut self) {
        let state = rmp_serde::to_vec_named(&self.session).expect("the state of a session");
        let session: Session = rmp_serde::from_slice(&state).expect("the same state");
        let (policy, identity) = (
            Arc::clone(&self.session.policy),
            Arc::clone(&self.session.identity),
        );
        self.session = session.restored(policy, identity);
    }

    /// Connects a node.
    pub(crate) fn node_up(&mut self) {
        self.node_up_with(false);
    }

    /// Connects a node. With `hold`, the session holds the component's publishes.
    pub(crate) fn node_up_with(&mut self, hold: bool) {
        self.node_up_as(&Info::default(), hold);
    }

    /// Connects a node that wants credentials.
    pub(crate) fn node_with_login_up(&mut self) {
        let info = Info {
            auth_required: true,
            ..Info::default()
        };
        self.node_up_as(&info, false);
    }

    /// Connects a node that has sent this INFO.
    pub(crate) fn node_up_as(&mut self, info: &Info, hold: bool) {
        let node = Arc::new(node("n:1"));
        self.call(|session, now, wires| session.node_up(node, info, hold, now, wires));
    }

    /// Calls a method of the session that takes only the time and the sockets.
    pub(crate) fn call(&mut self, method: impl FnOnce(&mut Session, Instant, &mut Pipes)) {
        method(&mut self.session, self.now, &mut self.pipes);
    }

    /// Reports a round of dialling that reached none of the `known` nodes.
    pub(crate) fn no_node(&mut self, known: usize, all_tried: bool) {
        let info = Info::default();
        self.call(|session, now, wires| session.no_node(known, all_tried, &info, now, wires));
    }

    /// Returns the events since the last call.
    pub(crate) fn events(&mut self) -> Vec<SessionEvent> {
        self.session.report().0
    }

    /// Returns the first loss of a node since the last call: its cause, its origin, and the number of publishes in doubt.
    pub(crate) fn loss(&mut self) -> (Cause, LossOrigin, InDoubtCount) {
        let events = self.events();
        let loss = events.iter().find_map(|event| match event {
            SessionEvent::Lost {
                cause,
                origin,
                in_doubt,
                ..
            } => Some((*cause, *origin, *in_doubt)),
            _ => None,
        });
        loss.unwrap_or_else(|| panic!("no loss in {events:?}"))
    }

    /// Returns whether there was such an event since the last call.
    pub(crate) fn had_event(&mut self, event: &SessionEvent) -> bool {
        self.events().contains(event)
    }

    /// Returns the reason for the end of the session, if it is over.
    pub(crate) fn end(&self) -> Option<EndReason> {
        self.session.end_reason()
    }

    pub(crate) fn component_bytes(&mut self, bytes: &[u8]) {
        self.call(|session, now, wires| session.component_bytes(bytes, now, wires));
    }

    pub(crate) fn node_bytes(&mut self, bytes: &[u8]) {
        self.call(|session, now, wires| session.node_bytes(bytes, now, wires));
    }

    /// Lets the component send these bytes in a new turn.
    pub(crate) fn component(&mut self, bytes: &str) {
        self.call(Session::begin_turn);
        self.component_bytes(bytes.as_bytes());
    }

    /// Lets the node send these bytes in a new turn.
    pub(crate) fn node(&mut self, bytes: &str) {
        self.call(Session::begin_turn);
        self.node_bytes(bytes.as_bytes());
    }

    pub(crate) fn lose(&mut self) {
        self.session.node_lost(Cause::Reset, self.now, &mut self.pipes);
        self.pipes.node.clear();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.pass_late(time, Duration::ZERO);
    }

    /// Lets `time` pass, then ticks the session and reports `late` as the delay of this tick. Checks that the next
    /// deadline of the session is in the future.
    pub(crate) fn pass_late(&mut self, time: Duration, late: Duration) {
        self.now += time;
        let info = Info::default();
        self.session.tick(late, &info, self.now, &mut self.pipes);
        let (due, state) = (self.session.deadline(), self.session.state());
        assert!(
            self.end().is_some() || due > self.now,
            "{state}: timer fires at once"
        );
    }

    /// Returns the bytes that the node got since the last call.
    pub(crate) fn sent(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.pipes.node)).unwrap()
    }

    /// Returns the bytes that the component got since the last call.
    pub(crate) fn seen(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.pipes.component)).unwrap()
    }
}
