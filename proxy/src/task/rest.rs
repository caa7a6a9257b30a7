//! A session at rest: its state for the program that is about to replace this one, and the session in that program.

use std::net::TcpStream as StdStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::time::Instant;

use standin_tls::stream::Stream;
use tokio::net::TcpStream;
use tracing::warn;

use super::moving::Next;
use super::{ROUNDS_MAX, Task};
use crate::dial::DialledNode;
use crate::handover::{NextRecord, SessionRecord, TaskRecord};
use crate::nodes::Permit;
use crate::session::Session;
use crate::session_command::SessionCommand;

/// A session of the former program.
pub(crate) struct FormerTask {
    pub(crate) session: Session,
    pub(crate) rest: FormerRest,
}

/// What a session of the former program has besides its [`Session`].
pub(crate) struct FormerRest {
    pub(crate) node: Option<StdStream>,
    pub(crate) next: Option<(StdStream, NextRecord)>,
    pub(crate) task: TaskRecord,
}

fn number(stream: &Stream) -> RawFd {
    stream.socket().as_raw_fd()
}

impl Task {
    /// Ends the session in an orderly way if its component has TLS, and leaves the session's node if that has TLS: the keys of a connection
    /// cannot be passed on.
    pub(super) fn prepare_rest(&mut self) {
        let now = self.now;
        if self.sockets.component.is_tls() {
            self.session
                .shut_down(now, self.shared.shutdown_timeout(), &mut self.sockets);
        } else if self.has_tls_node() && self.session.drain(now, &mut self.sockets) {
            self.next = None;
        } else {
            self.session_info.is_preparing.store(false, Relaxed);
        }
    }

    /// Marks the session as prepared once its node has answered everything, or is gone.
    pub(super) fn check_preparation(&mut self) {
        if self.session_info.is_preparing.load(Relaxed)
            && !self.session.is_ending()
            && (!self.session.keeps_node() || self.session.can_switch())
        {
            self.session_info.is_preparing.store(false, Relaxed);
        }
    }

    fn has_tls_node(&self) -> bool {
        self.sockets.node.as_ref().is_some_and(Stream::is_tls)
    }

    /// Brings the session to rest, and writes its state. An unfinished move is given up, except one whose next node only waits for the
    /// present one. If the session turns out to be over, no state is written, and its next turn closes it.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>) {
        if let Some(next) = &self.next
            && !matches!(**next, Next::Drained(_) | Next::Ready(_))
        {
            self.next = None;
            self.session.stay(Instant::now(), &mut self.sockets);
        }
        if self.session.is_leaving_for_balance() && self.next.is_none() {
            // The balancer plans it again, or another session moves.
            self.session.stay(Instant::now(), &mut self.sockets);
        }
        self.dial = None;
        for _ in 0..ROUNDS_MAX {
            let mut progress = self.handle_transitions(cx);
            let (events, ended) = self.session.report();
            progress |= !events.is_empty();
            events.into_iter().for_each(|event| self.handle(event));
            if ended.is_some() {
                // Nothing else may wake the task. This command causes the turn that ends the session.
                self.session_info.send(SessionCommand::Rest);
                return;
            }
            progress |= self.change_node();
            if !progress {
                break;
            }
        }
        self.report();
        if self.sockets.component.is_tls() {
            self.is_resting = self.shared.rest.add_without_state(self.session_info.id);
            return;
        }
        self.is_resting = self.shared.rest.add(self.record());
    }

    fn record(&self) -> SessionRecord<&Session> {
        let info = &self.session_info;
        let next = self.next.as_deref().and_then(|next| match next {
            Next::Drained(dialled) | Next::Ready(dialled) if !dialled.stream.is_tls() => Some(NextRecord {
                socket: number(&dialled.stream),
                node: (*dialled.node).clone(),
                info: dialled.info.clone(),
                after_info: dialled.after_info.clone(),
                was_away: dialled.was_away,
                is_ready: matches!(next, Next::Ready(_)),
            }),
            _ => None,
        });
        SessionRecord {
            id: info.id,
            listener: info.listener,
            component: info.component,
            component_socket: number(&self.sockets.component),
            node_socket: self
                .sockets
                .node
                .as_ref()
                .filter(|node| !node.is_tls())
                .map(number),
            next,
            session: &self.session,
            connected: info.connected,
            moves: info.status().moves,
            traffic: info.traffic(),
            away: self.shared.recovery.away(info.id),
            task: TaskRecord {
                served: self.recovery_entry.served_record(),
                is_back: self.recovery_entry.is_back(),
                rounds: self.rounds,
                search_began: self.search_began,
                is_half_open: self.is_half_open,
                offers_tls: self.sockets.tls.is_some(),
                component_broke: self.sockets.component_broke,
                node_broke: self.sockets.node_broke,
            },
        }
    }

    /// Goes on after the rest, because the upgrade has failed or was cancelled.
    pub(super) fn go_on(&mut self) {
        self.is_resting = false;
        if self.has_tls_node() {
            self.session.stay(self.now, &mut self.sockets);
        }
    }

    /// Goes on with a session of the former program.
    pub(super) fn restore(&mut self, former: FormerRest) {
        let FormerRest { node, next, task } = former;
        let node = node.and_then(attached);
        let next = next.and_then(|(stream, record)| Some(former_next(attached(stream)?, record)));
        self.recovery_entry.restore(task.served, task.is_back);
        (self.rounds, self.search_began) = (task.rounds, task.search_began);
        self.is_half_open = task.is_half_open;
        if task.offers_tls {
            self.offer_tls();
        }
        self.sockets.component_broke = task.component_broke;
        self.sockets.node_broke = task.node_broke;
        let is_lost = node.is_none() && self.session.keeps_node();
        self.sockets.node = node;
        let on = self
            .session
            .node()
            .cloned()
            .filter(|_| self.sockets.node.is_some());
        self.count_node(on.as_ref());
        let is_next_lost = next.is_none() && self.session.expects_next();
        self.next = next.map(Box::new);
        if is_next_lost {
            self.session.forget_move();
        }
        if is_lost {
            self.session.switch(self.now);
        }
        self.release();
    }
}

/// Returns a connection of the former program. If the runtime refuses it, the connection is lost.
fn attached(stream: StdStream) -> Option<Stream> {
    let attached = TcpStream::from_std(stream).map(Stream::from);
    attached
        .inspect_err(|error| warn!("connection of the former program is lost: {error}"))
        .ok()
}

fn former_next(stream: Stream, record: NextRecord) -> Next {
    let dialled = DialledNode {
        stream,
        node: Arc::new(record.node),
        info: record.info,
        after_info: record.after_info,
        was_away: record.was_away,
        permit: Permit::of_former(),
    };
    if record.is_ready {
        Next::Ready(dialled)
    } else {
        Next::Drained(dialled)
    }
}
