//! Components around real client libraries, old and new, controlled by a line protocol (`tests/components/README.md`).

use crate::machine::Machine;
use crate::peers;
use crate::process::{Process, Program, Stream};
use std::panic::Location;
use std::time::{Duration, Instant};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Events of a library that noticed a problem of its connection.
const TROUBLES: &[&str] = &["disconnected", "reconnecting", "reconnected", "error", "closed"];

/// A client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// npm nats 0.2.9, of 2014; knows one address.
    Node02,
    /// npm nats 0.8.10.
    Node08,
    /// npm nats 1.4.12.
    Node14,
    /// The current npm @nats-io/transport-node.
    NodeNow,
    /// PyPI nats-python 0.8.0; knows one address and never reconnects.
    NatsPython,
    /// The current PyPI nats-py.
    NatsPy,
    /// Debian's libnats, C.
    C,
    /// Debian's old Go client.
    Go,
}

impl Library {
    /// All libraries.
    pub const ALL: [Self; 8] = [
        Self::Node02,
        Self::Node08,
        Self::Node14,
        Self::NodeNow,
        Self::NatsPython,
        Self::NatsPy,
        Self::C,
        Self::Go,
    ];

    /// Libraries that speak TLS with the current servers; npm nats 0.8 cannot on the current Node.js.
    pub const WITH_TLS: [Self; 5] = [Self::Node14, Self::NodeNow, Self::NatsPy, Self::C, Self::Go];

    /// Returns whether the library can log in with an nkey, or with a credentials file. libnats 3.4 could, but about one in 200 of its
    /// signatures is wrong, which `nats-server` refuses too.
    pub fn signs(self) -> bool {
        matches!(self, Self::Node14 | Self::NodeNow | Self::NatsPy | Self::Go)
    }

    fn program(self) -> Program {
        let peers = peers::folder();
        let node = |script, folder| {
            Program::new(peers::node())
                .arg(peers::component_source(script))
                .arg(peers.join(folder))
                .env("NODE_NO_WARNINGS", "1")
        };
        let python = |script| Program::new(peers::python()).arg(peers::component_source(script));
        match self {
            Self::Node02 => node("component.js", "node-0.2"),
            Self::Node08 => node("component.js", "node-0.8"),
            Self::Node14 => node("component.js", "node-1.4"),
            Self::NodeNow => node("component_now.js", "node-now"),
            Self::NatsPython => python("component_nats_python.py"),
            Self::NatsPy => python("component_nats_py.py"),
            Self::C => Program::new(peers.join("bin/component-c")),
            Self::Go => Program::new(peers.join("bin/component-go")),
        }
    }
}

/// One message that a component received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When the component printed it.
    pub at: Instant,
    /// The name of its subscription.
    pub subscription: String,
    /// The subject to which it was published.
    pub subject: String,
    /// Its payload.
    pub payload: String,
}

/// A running component.
#[derive(Debug)]
pub struct Component {
    library: Library,
    process: Process,
}

impl Component {
    /// Starts a component that is not connected yet.
    pub fn start(library: Library) -> Self {
        Self {
            library,
            process: library.program().start(format!("component {library:?}")),
        }
    }

    /// Starts a component on this machine and connects it to an address.
    pub async fn connect_on(machine: &Machine, library: Library, url: &str) -> Self {
        let program = machine.program(library.program());
        let process = program.start(format!("component {library:?}"));
        let mut component = Self { library, process };
        component.connect_to(url).await;
        component
    }

    /// Starts a component and connects it to an address; options of `connect` (`tests/components/README.md`) may follow it.
    pub async fn connect(library: Library, url: &str) -> Self {
        let mut component = Self::start(library);
        component.connect_to(url).await;
        component
    }

    /// Connects to this address and waits until the library reports the connection.
    #[track_caller]
    pub fn connect_to(&mut self, url: &str) -> impl Future<Output = ()> {
        let command = format!("connect {url}");
        self.ask(command, "connected")
    }

    /// Returns the library.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Returns the process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends one command, and does not wait for an answer.
    pub fn say(&mut self, command: &str) {
        self.process.say(command);
    }

    /// Subscribes under this name.
    pub fn subscribe(&mut self, name: &str, subject: &str) {
        self.say(&format!("sub {name} {subject}"));
    }

    /// Subscribes under this name as a member of a queue group.
    pub fn subscribe_queue(&mut self, name: &str, subject: &str, queue: &str) {
        self.say(&format!("sub {name} {subject} {queue}"));
    }

    /// Unsubscribes.
    pub fn unsubscribe(&mut self, name: &str) {
        self.say(&format!("unsub {name}"));
    }

    /// Unsubscribes after `most` messages in total.
    pub fn unsubscribe_after(&mut self, name: &str, most: usize) {
        self.say(&format!("unsub {name} {most}"));
    }

    /// Answers requests with `prefix` and the request's payload.
    pub fn answer(&mut self, subject: &str, prefix: &str) {
        self.say(&format!("answer {subject} {prefix}"));
    }

    /// Publishes.
    pub fn publish(&mut self, subject: &str, payload: &str) {
        self.say(&format!("pub {subject} {payload}"));
    }

    /// Starts to publish `count` messages `prefix1`, `prefix2`, …, about `per_sec` a second, and does not wait.
    pub fn start_burst(&mut self, subject: &str, prefix: &str, count: usize, per_sec: usize) {
        self.say(&format!("burst {subject} {prefix} {count} {per_sec}"));
    }

    /// Waits for the end of the first burst.
    #[track_caller]
    pub fn wait_for_burst(&mut self, timeout: Duration) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.wait(at, 0, "burst-done", timeout).await.map_or((), drop) }
    }

    /// Sends a request and returns the reply.
    #[track_caller]
    pub fn request(&mut self, subject: &str, payload: &str) -> impl Future<Output = String> {
        let at = Location::caller();
        let command = format!("request {subject} {payload}");
        async move {
            let mark = self.process.mark();
            self.say(&command);
            self.wait(at, mark, "reply", ANSWER_TIMEOUT)
                .await
                .unwrap_or_default()
        }
    }

    /// Waits until the server has processed all that this component sent.
    #[track_caller]
    pub fn flush(&mut self) -> impl Future<Output = ()> {
        self.ask("flush".to_owned(), "flushed")
    }

    /// Closes the connection.
    #[track_caller]
    pub fn close(&mut self) -> impl Future<Output = ()> {
        self.ask("close".to_owned(), "closed")
    }

    /// Returns all messages so far of the subscription with this name.
    pub fn messages(&self, name: &str) -> Vec<Message> {
        let lines = self.process.lines();
        let messages = lines
            .iter()
            .filter(|line| line.stream == Stream::Out)
            .filter_map(|line| {
                let mut words = line.text.splitn(4, ' ');
                if words.next() != Some("msg") || words.next() != Some(name) {
                    return None;
                }
                let (subject, payload) = (
                    words.next()?.to_owned(),
                    words.next().unwrap_or_default().to_owned(),
                );
                Some(Message {
                    at: line.at,
                    subscription: name.to_owned(),
                    subject,
                    payload,
                })
            });
        messages.collect()
    }

    /// Returns the payloads of [`messages`](Self::messages).
    pub fn payloads(&self, name: &str) -> Vec<String> {
        self.messages(name)
            .into_iter()
            .map(|message| message.payload)
            .collect()
    }

    /// Waits until the subscription with this name has received exactly these payloads, in this order. Fails on any other payload.
    #[track_caller]
    pub fn expect_payloads(&mut self, name: &str, expected: &[&str]) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + ANSWER_TIMEOUT;
            loop {
                let received = self.payloads(name);
                if received == expected {
                    return;
                }
                let is_prefix = received.len() < expected.len() && received == expected[..received.len()];
                if !is_prefix || Instant::now() > deadline {
                    self.process
                        .fail(at, &format!("{expected:?} on {name}, got {received:?}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Returns the problems of its connection that the library reported: disconnects, errors and the like.
    pub fn troubles(&self) -> Vec<String> {
        let lines = self.process.lines();
        let events = lines
            .iter()
            .filter(|line| line.stream == Stream::Out)
            .map(|line| &line.text);
        events
            .filter(|text| TROUBLES.iter().any(|trouble| text.starts_with(trouble)))
            .cloned()
            .collect()
    }

    /// Fails the test if the library reported any problem of its connection, or the component ended.
    #[track_caller]
    pub fn assert_untroubled(&mut self) {
        let troubles = self.troubles();
        if !troubles.is_empty() || !self.process.is_running() {
            self.process.fail(
                Location::caller(),
                &format!("no problem of its connection, but it reported {troubles:?}"),
            );
        }
    }

    #[track_caller]
    fn ask(&mut self, command: String, answer: &'static str) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let mark = self.process.mark();
            self.say(&command);
            self.wait(at, mark, answer, ANSWER_TIMEOUT).await.map_or((), drop)
        }
    }

    /// Waits for the event `word` after the mark, and returns the rest of its line. An `error` event fails the test.
    async fn wait(
        &mut self,
        at: &Location<'_>,
        mark: usize,
        word: &str,
        timeout: Duration,
    ) -> Option<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let running = self.process.is_running();
            let event = self
                .process
                .lines()
                .iter()
                .enumerate()
                .skip(mark)
                .find_map(|(number, line)| {
                    let (first, rest) = line.text.split_once(' ').unwrap_or((&line.text, ""));
                    let hit = line.stream == Stream::Out && (first == word || first == "error");
                    hit.then(|| (first == word, number, rest.to_owned()))
                });
            match event {
                Some((true, _, rest)) => return Some(rest),
                Some((false, number, error)) => {
                    let around = self.process.around(number);
                    self.process
                        .fail(at, &format!("{word:?}, got the error {error}, here:\n{around}"));
                }
                None if !running || Instant::now() > deadline => {
                    self.process
                        .fail(at, &format!("the event {word:?} within {timeout:?}"));
                }
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }
}
