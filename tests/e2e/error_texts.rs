//! Reaction of real client libraries to the end of a connection. It decides which `-ERR` texts the sidecar may send by itself
//! (promise S9).
//!
//! [`TABLE`] is measured: the test connects each library directly to a node that acts as a row says, and fails if the library
//! does not react as its column says. It leads to a rule: **the sidecar sends no `-ERR` of its own to a component without a fault.**
//! It closes the connection without a text, and every library that can reconnect then does. nats-py, the C and the Go library
//! close for good after an unknown text, and also after some texts of `nats-server` ("Server Shutdown"). npm nats 0.2 to 1.4
//! emit `error`, which ends a program without a listener for it. npm nats 0.8.10 reads nothing more after a permissions
//! violation until it reconnects, with or without the sidecar.
//!
//! An `-ERR` of the sidecar is right only for a fault of the component that any node would refuse. [`ClientFault`] lists these:
//! a malformed frame, a control line or a payload over the limit (`WireError`), and one subscription more than
//! `session.subscriptions_max`. The texts are those of `nats-server`, so a component sees the same as without the sidecar. A
//! component that is too slow, or does not answer PINGs, is closed without a text.
//!
//! The sidecar must end a connection with a FIN: npm nats 0.2.9 never reconnects after a reset (tested in `promises::outage`).
//!
//! The Go library is 1.22 of Debian. The newest was not found in the package registries that `tests/run` uses.

use e2e::{Component, Library, NodeConnection, ScriptedNode, ServerKind};
use futures_util::future::join_all;
use standin_wire::{ClientFault, Refusal};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

/// The first column is the text of the `-ERR`. The second says what follows: the connection is closed (FIN), reset (RST), or stays
/// open (`open`). Then each library has a column with its reaction:
///
/// - `again`: reconnects and repeats its subscriptions;
/// - `stays`: continues, and delivers messages;
/// - `deaf`: keeps the connection and delivers no more messages;
/// - `closed`: tells its program that the connection is closed for good;
/// - `lost`: never reconnects, and does not tell its program;
/// - `exits`: throws an exception that ends its program.
///
/// `!`: npm nats also emits `error`, which ends a program without a listener for it, or `permission_error`, which does not. Events
/// of the other libraries do not end a program, and are not in the table.
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

/// Timeout for a library to reconnect. Most wait two seconds first. It must be shorter than the timeout of a scripted node.
const RECONNECT_WAIT: Duration = Duration::from_secs(8);

/// Timeout for the first message after an `-ERR` that leaves the connection open.
const MESSAGE_WAIT: Duration = Duration::from_secs(3);

/// Limit on the components that start at the same time. If all started at once, each would take too long.
const STARTS_MAX: usize = 6;

/// Address of the nodes. No other test uses it, so no client of another test reconnects here.
const OWN_ADDRESS: [u8; 4] = [127, 0, 9, 1];

const START_WAIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn s9_each_library_reacts_to_each_end_of_a_connection_as_the_table_says() {
    let rows: Vec<Vec<&str>> = TABLE.trim().lines().map(cells).collect();
    let libraries: Vec<String> = Library::ALL
        .iter()
        .map(|library| format!("{library:?}"))
        .collect();
    assert_eq!(rows[0][2..], libraries, "a column for each library");

    // All components are connected before the first one is observed, so that starting components do not slow down others.
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
                    "{library}, {:?}, {}: {does}, not {said}; events: {events:?}",
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
fn s9_the_sidecar_sends_only_error_texts_that_nats_server_sends_for_a_clients_fault() {
    for kind in [ServerKind::NatsServer, ServerKind::OldNatsServer] {
        let program = kind.path();
        let bytes = std::fs::read(&program)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", program.display()));
        let says = |text: &str| {
            assert!(
                memchr::memmem::find(&bytes, text.as_bytes()).is_some(),
                "{} does not contain {text:?}",
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

/// Returns the cells of a row of the table.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// One library and one row of the table.
struct Case {
    text: &'static str,
    then: &'static str,
    node: ScriptedNode,
    connection: NodeConnection,
    sid: String,
    component: Component,
}

impl Case {
    /// Starts a component of this library and waits until it has subscribed at its node.
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

    /// Does to the connection what the row says. Returns the library's reaction, in the words of the table, and its events.
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
            other => panic!("{other:?} is not FIN, RST or open"),
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

/// Reads from a component until its first subscription, answers its PINGs, and returns the sid.
async fn until_subscribed(connection: &mut NodeConnection) -> String {
    connection.set_timeout(START_WAIT);
    loop {
        let frame = connection.read_command().await;
        if frame.verb() == "SUB" {
            return frame.words().last().expect("a sid").clone();
        }
    }
}

/// Returns whether the component delivers one of several messages. Some libraries process a message only when another one arrives.
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
