//! What real client libraries do when the server ends the connection, and which `-ERR` texts the sidecar may therefore say
//! itself (promise S9).
//!
//! [`TABLE`] is measured: each library talks directly to a node that does what a row says, and a library that does anything
//! else fails the test. The rule that follows: **the sidecar says no `-ERR` of its own to a component that did nothing wrong.**
//! It closes the connection without a word, after which every library that can connect again does so. At a text that they do
//! not know nats-py, the C and the Go library close for good, and so they do at some that `nats-server` says of itself
//! ("Server Shutdown"). npm nats 0.2 to 1.4 emit `error`, which ends a program that does not listen to it. npm nats 0.8.10 takes
//! no more bytes after a permissions violation until it connects again, with or without the sidecar.
//!
//! An `-ERR` of its own is right only where the component did wrong and would do the same wrong on any node. That is what
//! [`ClientFault`] lists: a broken frame, a control line or a payload over the limit (`WireError`), and one subscription more
//! than `session.subscriptions_max`. The texts are those of `nats-server`, so that a component sees what it would see without
//! the sidecar. A component that is too slow, or does not answer PINGs, is closed without a word.
//!
//! The end has to be a FIN: npm nats 0.2.9 never connects again after a reset (`promises::outage` has the test).
//!
//! The Go library is 1.22 of Debian; the newest was not found in the package registries that `tests/run` uses.

use e2e::{Component, Library, NodeConnection, ScriptedNode, Version};
use futures_util::future::join_all;
use standin_wire::{ClientFault, Refusal};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

/// The first column is the text of the `-ERR`, the second what follows it: the connection is closed (FIN), reset (RST), or left
/// open (`open`). Then one column for each library, with what it does:
///
/// - `again`: connects again and repeats its subscriptions;
/// - `stays`: goes on, and messages are delivered;
/// - `deaf`: keeps the connection, and takes no message any more;
/// - `closed`: tells its program that the connection is closed for good;
/// - `lost`: never connects again, and its program is not told that this is the end;
/// - `exits`: throws what ends its program.
///
/// With `!` npm nats emits an error besides, and a program that does not listen to `error` ends there (but not for want of a
/// listener to `permission_error`). The other libraries have no such trap; what they tell of is not in the table.
const TABLE: &str = r#"
| -ERR                                            | then | Node02 | Node08 | Node14 | NodeNow | NatsPython | NatsPy | C      | Go     |
|                                                 | FIN  | again  | again  | again  | again   | exits      | again  | again  | again  |
|                                                 | RST  | lost!  | again  | again  | again   | exits      | again  | again  | again  |
| Stale Connection                                | FIN  | again! | again  | again  | again   | exits      | again  | again  | again  |
| Authorization Violation                         | FIN  | again! | again! | again! | again   | exits      | closed | again  | again  |
| maximum connections exceeded                    | FIN  | again! | again! | again! | again   | exits      | closed | closed | again  |
| Slow Consumer                                   | FIN  | again! | again! | again! | again   | exits      | closed | closed | closed |
| Server Shutdown                                 | FIN  | again! | again! | again! | again   | exits      | closed | closed | closed |
| Standin: no NATS node could be reached for 30 s | FIN  | again! | again! | again! | again   | exits      | closed | closed | closed |
| Unknown Protocol Operation                      | FIN  | again! | again! | again! | again   | exits      | closed | closed | closed |
| maximum control line exceeded                   | FIN  | again! | again! | again! | again   | exits      | closed | closed | closed |
| Maximum Payload Violation                       | FIN  | again! | again! | again! | again   | exits      | closed | closed | closed |
| maximum subscriptions exceeded                  | open | stays! | again! | again! | stays   | exits      | closed | closed | closed |
| Permissions Violation for Publish to "a"        | open | stays! | deaf!  | stays! | stays   | exits      | stays  | stays  | stays  |
"#;

/// How long a library has for connecting again; most wait two seconds before they try. Shorter than the patience of a node.
const RECONNECT_WAIT: Duration = Duration::from_secs(8);

/// How long a library has for the first of the messages that it is sent after an `-ERR` that leaves the connection open.
const MESSAGE_WAIT: Duration = Duration::from_secs(3);

/// Components that start at a time: with all at once each would take too long.
const STARTS_MAX: usize = 6;

/// Where the nodes listen: where nobody looks for the nodes of other tests.
const OWN_ADDRESS: [u8; 4] = [127, 0, 9, 1];

const START_WAIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn s9_what_each_library_does_at_each_end_is_what_the_table_says() {
    let rows: Vec<Vec<&str>> = TABLE.trim().lines().map(cells).collect();
    let libraries: Vec<String> = Library::ALL
        .iter()
        .map(|library| format!("{library:?}"))
        .collect();
    assert_eq!(rows[0][2..], libraries, "a column for each library");

    // All are connected before the first is watched, so that the starting of some does not slow down others.
    let starts = Semaphore::new(STARTS_MAX);
    let cases = rows[1..].iter().flat_map(|row| {
        let permits = &starts;
        Library::ALL
            .into_iter()
            .map(move |library| Case::start(library, row[0], row[1], permits))
    });
    let cases = join_all(cases).await;
    let measured = join_all(cases.into_iter().map(Case::outcome)).await;

    let mut measured = measured.into_iter();
    let mut wrong = Vec::new();
    for row in &rows[1..] {
        for ((library, said), (does, events)) in libraries.iter().zip(&row[2..]).zip(&mut measured) {
            if does != *said {
                wrong.push(format!(
                    "{library}, {:?}, {}: {does}, not {said}; its events: {events:?}",
                    row[0], row[1]
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "libraries do not do what the table says:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn s9_the_sidecar_says_only_what_nats_server_says_of_a_clients_own_fault() {
    for version in [Version::Newest, Version::Debian] {
        let program = version.program();
        let bytes = std::fs::read(&program)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", program.display()));
        let says = |text: &str| {
            assert!(
                memchr::memmem::find(&bytes, text.as_bytes()).is_some(),
                "{} does not know {text:?}",
                program.display()
            );
        };
        says("-ERR '%s'\r\n");
        ClientFault::ALL.iter().for_each(|fault| says(fault.text()));
    }
    for fault in ClientFault::ALL {
        let (text, mut line) = (fault.text(), Vec::new());
        standin_wire::encode::err(text.as_bytes(), &mut line);
        assert_eq!(line, format!("-ERR '{text}'\r\n").into_bytes());
        let refusal = Refusal::of(text.as_bytes());
        assert!(
            matches!(refusal, Refusal::Client | Refusal::Command),
            "{text:?} is not about the client: {refusal:?}"
        );
        let in_table = TABLE.lines().any(|row| cells(row)[0] == text);
        assert!(in_table, "{text:?} is not in the table");
    }
}

/// The sidecar could get round [`ClientFault`] only by making the bytes of an `-ERR` in another place.
#[test]
fn s9_one_file_of_the_sidecar_makes_the_bytes_of_an_err() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/src");
    let mut makers = Vec::new();
    let mut folders = vec![sources.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            if text.contains("encode::err") || text.contains("b\"-ERR") {
                makers.push(path.strip_prefix(&sources).expect("a file of these").to_owned());
            }
        }
    }
    assert_eq!(makers, [Path::new("error_text.rs")]);
}

/// The cells of a row of the table.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// A library and a row.
struct Case {
    text: &'static str,
    then: &'static str,
    node: ScriptedNode,
    connection: NodeConnection,
    sid: String,
    component: Component,
}

impl Case {
    /// Starts a component of this library and waits until its node has a subscription of it.
    async fn start(library: Library, text: &'static str, then: &'static str, starts: &Semaphore) -> Self {
        let _permit: SemaphorePermit<'_> = starts.acquire().await.expect("never closed");
        let mut node = ScriptedNode::start_on(OWN_ADDRESS.into()).await;
        let mut component = Component::start(library);
        let url = node.url();
        let serve = async {
            let mut connection = node.accept().await;
            let sid = until_subscribed(&mut connection).await;
            (connection, sid)
        };
        let subscribe = async {
            component.connect_to(&url).await;
            component.subscribe("own", "own");
        };
        let ((connection, sid), ()) = tokio::join!(serve, subscribe);
        Self {
            text,
            then,
            node,
            connection,
            sid,
            component,
        }
    }

    /// Does what the row says to the connection. Returns what the library does, in the words of the table, and its events.
    async fn outcome(self) -> (String, Vec<String>) {
        let Self {
            text,
            then,
            mut node,
            mut connection,
            sid,
            mut component,
        } = self;
        if !text.is_empty() {
            connection.err(text).await;
        }
        let mut open = None;
        match then {
            "FIN" => connection.close().await,
            "RST" => connection.reset(),
            "open" => open = Some(connection),
            other => panic!("{other:?} is no way to go on"),
        }
        let connects_again = async { until_subscribed(&mut node.accept().await).await };
        let does = if timeout(RECONNECT_WAIT, connects_again).await.is_ok() {
            "again"
        } else if !component.process().is_running() {
            "exits"
        } else if component
            .troubles()
            .iter()
            .any(|event| event.starts_with("closed"))
        {
            "closed"
        } else if let Some(mut connection) = open {
            if takes_messages(&mut connection, &sid, &component).await {
                "stays"
            } else {
                "deaf"
            }
        } else {
            "lost"
        };
        let events = component.troubles();
        let emits = matches!(
            component.library(),
            Library::Node02 | Library::Node08 | Library::Node14
        );
        let is_told = emits && events.iter().any(|event| event.starts_with("error"));
        (format!("{does}{}", if is_told { "!" } else { "" }), events)
    }
}

/// Takes what a component says, answers its PINGs, and returns the sid of its first subscription.
async fn until_subscribed(connection: &mut NodeConnection) -> String {
    connection.set_patience(START_WAIT);
    loop {
        let frame = connection.read_command().await;
        if frame.verb() == "SUB" {
            return frame.words().last().expect("a sid").clone();
        }
    }
}

/// Whether one of several messages comes through. Several, as some libraries look at what came only when more comes.
async fn takes_messages(connection: &mut NodeConnection, sid: &str, component: &Component) -> bool {
    let deadline = Instant::now() + MESSAGE_WAIT;
    while component.payloads("own").is_empty() && Instant::now() < deadline {
        let message = format!("MSG own {sid} 2\r\nhi\r\n");
        connection
            .send_until_blocked(message, Duration::from_millis(100))
            .await;
        sleep(Duration::from_millis(200)).await;
    }
    !component.payloads("own").is_empty()
}
