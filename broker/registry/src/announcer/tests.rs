//! What the operator is told of an announcement, and how often.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::node::Source;
use crate::record::Record;
use crate::registration::Ghost;

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

/// An announcer, and what it logs and publishes for each report.
struct Scene {
    announcer: Announcer,
    state: channel::Receiver<RegistrationState>,
    log: Log,
}

impl Scene {
    fn new() -> Self {
        let record = Record::new("n1", Endpoint::new("10.0.0.1", 4222));
        let wanted = Wanted {
            record: Arc::new(record),
            is_held: false,
            dead_run: None,
        };
        let (publish, state) = channel::channel(RegistrationState::Withdrawn);
        let mut announcer = Announcer::new(channel::Sender::new(Some(wanted)).subscribe(), publish);
        announcer.register_under("/nodes".to_owned());
        Self {
            announcer,
            state,
            log: Log::default(),
        }
    }

    fn lines(&mut self, event: RegistrationEvent) -> Lines {
        tracing::subscriber::with_default(self.log.clone(), || self.announcer.take(event));
        self.log.take()
    }

    fn levels(&mut self, event: RegistrationEvent) -> Vec<Level> {
        self.lines(event).into_iter().map(|(level, _)| level).collect()
    }
}

fn waiting(is_taken: bool) -> RegistrationEvent {
    let node = Node::at(Endpoint::new("10.0.0.2", 4222), Source::ZooKeeper);
    let holder = Holder::Node(Arc::new(node));
    RegistrationEvent::Waiting(Waiting { holder, is_taken })
}

#[test]
fn a_taken_id_is_an_error_that_names_the_znode_and_the_other() {
    let mut scene = Scene::new();
    assert_eq!(scene.levels(waiting(false)), [Level::INFO]);
    assert_eq!(scene.state.borrow_and_update().as_str(), "seeking");
    let lines = scene.lines(waiting(true));
    assert_eq!((lines.len(), lines[0].0), (1, Level::ERROR));
    assert!(
        lines[0].1.contains("/nodes/n1") && lines[0].1.contains("10.0.0.2:4222"),
        "{lines:?}"
    );
    assert_eq!(scene.state.borrow_and_update().as_str(), "taken");
}

#[test]
fn what_others_did_to_our_znode_is_a_warning_and_changes_no_standing() {
    let mut scene = Scene::new();
    assert_eq!(scene.levels(RegistrationEvent::Announced), [Level::INFO]);
    scene.state.borrow_and_update();
    assert_eq!(scene.levels(RegistrationEvent::Deleted), [Level::WARN]);
    assert_eq!(scene.levels(RegistrationEvent::Overwritten), [Level::WARN]);
    assert_eq!(scene.levels(RegistrationEvent::Rewritten), [Level::INFO]);
    assert_eq!(
        scene.levels(RegistrationEvent::Removed(Ghost::EarlierProcess)),
        [Level::INFO]
    );
    assert!(!scene.state.has_changed().unwrap());
    scene.announcer.without_session("no memory");
    assert_eq!(scene.state.borrow_and_update().as_str(), "seeking");
}
