//! What the operator is told of an announcement, and how often.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;
use crate::endpoint::Endpoint;
use crate::node::Source;
use crate::place::Ghost;

/// Log lines, each with its level.
type Lines = Vec<(Level, String)>;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Lines>>);

impl Log {
    fn take(&self) -> Lines {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((*event.metadata().level(), message.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A crier, and what it tells of each report.
struct Told {
    crier: Crier,
    standing: channel::Receiver<Standing>,
    log: Log,
}

impl Told {
    fn new() -> Self {
        let reason = String::new();
        let (publish, standing) = channel::channel(Standing::Seeking { reason });
        let crier = Crier {
            znode: "/nodes/n1".into(),
            standing: publish,
            is_outage_told: false,
        };
        let log = Log::default();
        Self { crier, standing, log }
    }

    /// The lines above debug that a report makes.
    fn lines(&mut self, report: Report<Word>) -> Lines {
        tracing::subscriber::with_default(self.log.clone(), || self.crier.take(report));
        let mut lines = self.log.take();
        lines.retain(|(level, _)| *level < Level::DEBUG);
        lines
    }

    fn levels(&mut self, report: Report<Word>) -> Vec<Level> {
        self.lines(report).into_iter().map(|(level, _)| level).collect()
    }
}

fn up(is_continued: bool) -> Report<Word> {
    Report::Up {
        server: ([127, 0, 0, 1], 2181).into(),
        after: Duration::from_secs(1),
        is_continued,
    }
}

fn lost() -> Report<Word> {
    Report::Lost {
        server: ([127, 0, 0, 1], 2181).into(),
        reason: "it froze".into(),
        lasted: Duration::from_secs(9),
    }
}

fn unreachable(reason: &str) -> Report<Word> {
    Report::Unreachable {
        reason: reason.into(),
    }
}

fn stands() -> Report<Word> {
    Report::Word(Word::Announced { nodes: vec![] })
}

fn waiting(is_taken: bool) -> Report<Word> {
    let node = Node::at(Endpoint::new("10.0.0.2", 4222), Source::ZooKeeper);
    let holder = Holder::Node(Arc::new(node));
    Report::Word(Word::Waiting(Waiting { holder, is_taken }))
}

#[test]
fn an_outage_is_told_once_whatever_its_rounds_say() {
    let mut told = Told::new();
    for begin in [unreachable("no route"), lost()] {
        assert_eq!(told.levels(begin), [Level::WARN]);
        for reason in ["refused", "no answer", "refused"] {
            assert_eq!(told.levels(unreachable(reason)), Vec::<Level>::new());
            let reason = reason.to_owned();
            assert_eq!(*told.standing.borrow_and_update(), Standing::Seeking { reason });
        }
        assert_eq!(told.levels(up(false)), [Level::INFO]);
        assert_eq!(told.levels(stands()), [Level::INFO]);
    }
}

#[test]
fn whether_the_session_is_the_one_before_is_told_in_one_line() {
    let mut told = Told::new();
    for (is_continued, line) in [
        (false, "announcement: session up"),
        (true, "announcement: session continued"),
    ] {
        let line = line.to_owned();
        assert_eq!(told.lines(up(is_continued)), [(Level::INFO, line)]);
    }
}

#[test]
fn a_taken_id_is_an_error_that_names_the_znode_and_the_other() {
    let mut told = Told::new();
    assert_eq!(told.levels(waiting(false)), [Level::INFO]);
    assert_eq!(told.standing.borrow_and_update().as_str(), "seeking");
    let lines = told.lines(waiting(true));
    assert_eq!((lines.len(), lines[0].0), (1, Level::ERROR));
    assert!(
        lines[0].1.contains("/nodes/n1") && lines[0].1.contains("10.0.0.2:4222"),
        "{lines:?}"
    );
    assert_eq!(told.standing.borrow_and_update().as_str(), "taken");
}

#[test]
fn what_others_did_to_our_znode_is_a_warning_and_changes_no_standing() {
    let mut told = Told::new();
    told.lines(stands());
    told.standing.borrow_and_update();
    assert_eq!(told.levels(Report::Word(Word::Deleted)), [Level::WARN]);
    assert_eq!(told.levels(Report::Word(Word::Overwritten)), [Level::WARN]);
    assert_eq!(told.levels(Report::Word(Word::Rewritten)), [Level::INFO]);
    let ghost = Ghost::EarlierLife;
    assert_eq!(told.levels(Report::Word(Word::Removed(ghost))), [Level::INFO]);
    assert!(!told.standing.has_changed().unwrap());
    let reason = "no memory".to_owned();
    assert_eq!(told.levels(Report::Fallen { reason }), [Level::ERROR]);
    assert_eq!(told.standing.borrow_and_update().as_str(), "seeking");
}
