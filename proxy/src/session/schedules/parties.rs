//! The two parties of the simulation: a node with one client, and a component that checks its answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use standin_wire::client::{self, Frame};
use standin_wire::limits::FrameLimits;
use standin_wire::{Connect, Move, encode, server};

/// A node of the simulation, with the state of its one client.
#[derive(Default)]
pub(super) struct SimNode {
    pub(super) got: VecDeque<u8>,
    pub(super) says: VecDeque<u8>,
    pub(super) verbose: bool,
    pub(super) subs: BTreeMap<String, SimSub>,
    /// The node has closed its sending side and still reads.
    pub(super) is_half_closed: bool,
    /// The session was told that this node is ready.
    pub(super) is_ready: bool,
    /// The session leaves the node, which has not answered yet.
    pub(super) leaves: bool,
    /// The node delivers nothing more.
    pub(super) has_left: bool,
    /// The session has moved here by plan, and may not leave yet.
    pub(super) settles: bool,
    /// Sids of subscriptions in queue groups.
    pub(super) shared: BTreeSet<String>,
    /// Messages that are on their way to this node: sid and line.
    pub(super) late: VecDeque<(String, String)>,
    /// Without MOVE: the node has learned these subscriptions without their max.
    pub(super) open_ended: BTreeSet<String>,
}

/// A subscription from the point of view of one party.
pub(super) struct SimSub {
    pub(super) subject: String,
    /// Messages that the node has sent, or that the component has got from all nodes together.
    pub(super) count: u64,
    pub(super) max: Option<u64>,
}

impl SimSub {
    pub(super) fn new(subject: String) -> Self {
        Self {
            subject,
            count: 0,
            max: None,
        }
    }

    /// Returns whether the subscription is live: it has not reached its max.
    pub(super) fn lives(&self) -> bool {
        self.max.is_none_or(|max| self.count < max)
    }
}

/// The component of the simulation.
#[derive(Default)]
pub(super) struct SimComponent {
    pub(super) verbose: bool,
    pub(super) unsent: VecDeque<u8>,
    pub(super) publishes: u64,
    pub(super) sids: u64,
    /// Subscriptions from the component's point of view.
    pub(super) subs: BTreeMap<String, SimSub>,
    /// Number of SUBs sent. Each has its own subject, so each message can be assigned to its SUB.
    pub(super) subscribed: u64,
    /// Expected answers, in order.
    pub(super) awaits: VecDeque<&'static str>,
    pub(super) got: Vec<u8>,
    pub(super) infos: u64,
    /// Numbers of the messages received, by subject.
    pub(super) received: BTreeMap<String, Vec<u64>>,
}

impl SimComponent {
    pub(super) fn read(&mut self) {
        let got = std::mem::take(&mut self.got);
        let mut at = 0;
        while let Some((frame, len)) =
            server::decode(&got[at..], FrameLimits::SERVER).expect("the component gets frames only")
        {
            match frame {
                server::Frame::Ok => self.answered("+OK"),
                server::Frame::Move(_) => panic!("MOVE is for sidecars"),
                server::Frame::Pong => self.answered("PONG"),
                server::Frame::Info(_) => self.infos += 1,
                server::Frame::Message(message) => {
                    if let Some(sub) = self.subs.get_mut(&text(message.sid))
                        && sub.subject.as_bytes() == message.subject
                    {
                        sub.count += 1;
                        let number = text(message.payload).parse().expect("a number");
                        let received = self.received.entry(sub.subject.clone()).or_default();
                        received.push(number);
                    }
                }
                server::Frame::Ping => {}
                server::Frame::Err(error) => panic!("-ERR {}", text(error)),
            }
            at += len;
        }
        self.got = got[at..].to_vec();
    }

    pub(super) fn answered(&mut self, with: &str) {
        assert_eq!(
            self.awaits.pop_front(),
            Some(with),
            "an answer too many, or out of order"
        );
    }
}

impl SimNode {
    /// Ends a subscription.
    fn end(&mut self, sid: &str) {
        self.subs.remove(sid);
        self.shared.remove(sid);
        self.open_ended.remove(sid);
        self.late.retain(|(late, _)| late != sid);
    }

    /// Sends this message to the client now, or later.
    pub(super) fn deliver(&mut self, sid: &str, number: u64, later: bool) {
        let Some(sub) = self.subs.get(sid) else { return };
        let text = number.to_string();
        let line = format!("MSG {} {sid} {}\r\n{text}\r\n", sub.subject, text.len());
        self.late.push_back((sid.to_owned(), line));
        if !later {
            self.catch_up();
        }
    }

    /// Sends the messages that were on their way.
    pub(super) fn catch_up(&mut self) {
        while let Some((sid, line)) = self.late.pop_front() {
            let Some(sub) = self.subs.get_mut(&sid) else {
                continue;
            };
            self.says.extend(line.as_bytes());
            sub.count += 1;
            if !sub.lives() {
                self.end(&sid);
            }
        }
    }

    /// Processes one frame. Returns `None` if no frame is complete; `Some(None)` unless the frame is a publish with a number.
    pub(super) fn process(&mut self) -> Option<Option<u64>> {
        let got = self.got.make_contiguous();
        let (frame, len) = client::decode(got, FrameLimits::CLIENT).expect("a node gets frames only")?;
        let (mut number, mut ok) = (None, true);
        assert!(
            !self.leaves && !self.has_left
                || !matches!(frame, Frame::Sub(_) | Frame::Unsub(_) | Frame::Connect(_)),
            "the subscriptions must not change after `leave`: {frame:?}"
        );
        match frame {
            Frame::Connect(json) => self.verbose = Connect::parse(json).expect("CONNECT is JSON").verbose,
            Frame::Publish(publish) => {
                let payload = text(publish.payload);
                number = payload.split(' ').next().and_then(|number| number.parse().ok());
            }
            Frame::Sub(sub) => {
                let before = self.subs.insert(text(sub.sid), SimSub::new(text(sub.subject)));
                assert!(before.is_none(), "{} was subscribed twice", text(sub.sid));
                if sub.queue.is_some() {
                    self.shared.insert(text(sub.sid));
                }
            }
            Frame::Unsub(unsub) => {
                let sid = text(unsub.sid);
                match (unsub.max, self.subs.get_mut(&sid)) {
                    (Some(max), Some(sub)) if max > sub.count => sub.max = Some(max),
                    _ => self.end(&sid),
                }
            }
            Frame::Ping => {
                self.says.extend(encode::PONG);
                ok = false;
            }
            Frame::Move(json) => {
                ok = false;
                match Move::parse(json).expect("a step") {
                    Move::Leave { .. } => self.leaves = true,
                    Move::Go => self.settles = true,
                    Move::Arrive { .. } => {}
                    other => panic!("{other:?} is no step of a sidecar"),
                }
            }
            Frame::Pong => ok = false,
        }
        if ok && self.verbose {
            self.says.extend(encode::OK);
        }
        self.got.drain(..len);
        Some(number)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
