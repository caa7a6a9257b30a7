//! The turns of a worker. The ready connections of one thread read their input, one after the other, and their output for clients and
//! routes is collected on one stage. It is sent once, when all ready connections have had their turns.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::close_reason::CloseReason;
use crate::outbox::Outbox;
use crate::pause::{CHECK_INTERVAL, PauseWatch};
use crate::router::Router;
use crate::settings::QueuePreference;
use crate::shared::Shared;
use crate::stage::Stage;

/// Size of a worker's read buffer. Larger reads need fewer system calls per message; smaller ones let other clients have their turn
/// sooner.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static TURNS: RefCell<Option<Turns>> = const { RefCell::new(None) };
}

/// State that the connections of one thread use in turn.
struct Turns {
    router: Router,
    buffer: Vec<u8>,
    flusher: Flusher,
    pauses: PauseWatch,
}

/// Makes the present thread the worker with this number.
pub(crate) fn begin(number: usize, shared: &Shared) {
    let settings = shared.settings.load();
    let mut router = Router::new(number, settings.process.match_cache_max);
    router.prefers_local = settings.cluster.queue_preference == QueuePreference::Local;
    shared.flush.add_stage(&router.stage);
    TURNS.set(Some(Turns {
        router,
        buffer: vec![0; READ_BYTES],
        flusher: Flusher::default(),
        pauses: PauseWatch::new(number),
    }));
}

/// Runs `act` with the turns of this thread. Returns `None` if the thread is not a worker.
fn with_turns<R>(act: impl FnOnce(&mut Turns) -> R) -> Option<R> {
    TURNS.with_borrow_mut(|turns| turns.as_mut().map(act))
}

/// Gives one connection its turn. The output that `take` stages is sent when all ready connections have had their turns.
pub(crate) fn take<R>(
    pending_bytes_max: usize,
    take: impl FnOnce(&mut Router, &mut [u8], &mut PauseWatch) -> Result<R, CloseReason>,
) -> Result<R, CloseReason> {
    let taken = with_turns(|turns| {
        let router = &mut turns.router;
        router.trace = tracing::enabled!(tracing::Level::TRACE);
        router.stage.set_pending_bytes_max(pending_bytes_max);
        router.begin_turn();
        let taken = take(router, &mut turns.buffer, &mut turns.pauses);
        turns.flusher.call(&router.stage);
        taken
    });
    taken.unwrap_or(Err(CloseReason::Shutdown))
}

/// Runs `act` between the turns of the connections. What it stages is sent with the output of the turns.
pub(crate) fn between<R>(act: impl FnOnce(&mut Router) -> R) -> Option<R> {
    with_turns(|turns| {
        let done = act(&mut turns.router);
        turns.flusher.call(&turns.router.stage);
        done
    })
}

/// Sends all staged output at once.
pub(crate) fn flush() {
    with_turns(|turns| turns.router.stage.flush());
}

/// Sends these bytes at once, after the output that is staged for this connection.
pub(crate) fn send(outbox: &Arc<Outbox>, bytes: &[u8]) {
    with_turns(|turns| {
        let stage = &mut turns.router.stage;
        stage.of(outbox).bytes.extend_from_slice(bytes);
        stage.flush_to(outbox);
    });
}

/// Waker of the task that sends the staged output. The first connection that stages something in a turn wakes the task, so the task
/// runs when all connections that were ready at that time have had their turns.
#[derive(Default)]
struct Flusher {
    task: Option<Waker>,
    called: bool,
}

impl Flusher {
    fn call(&mut self, stage: &Stage) {
        if !self.called
            && !stage.is_empty()
            && let Some(task) = &self.task
        {
            self.called = true;
            task.wake_by_ref();
        }
    }
}

/// Sends the staged output of this thread's connections, forever. To be spawned on each worker.
pub(crate) async fn keep_flushing() {
    poll_fn(|cx| {
        with_turns(|turns| {
            let flusher = &mut turns.flusher;
            flusher.task.get_or_insert_with(|| cx.waker().clone());
            flusher.called = false;
            turns.router.stage.flush();
        });
        Poll::<()>::Pending
    })
    .await;
}

/// Makes the cuts of this worker (see [`moves`](crate::moves)), forever. To be spawned on each worker.
pub(crate) async fn keep_making_cuts(shared: Arc<Shared>) {
    poll_fn(|cx| {
        with_turns(|turns| {
            let stage = &mut turns.router.stage;
            shared.moves.register(stage.worker(), cx.waker());
            shared.moves.make_cuts(stage.worker(), &shared.interest, stage);
        });
        Poll::<()>::Pending
    })
    .await;
}

/// Detects pauses of this worker while no connection has a turn, forever. To be spawned on each worker.
pub(crate) async fn watch_for_pauses(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        with_turns(|turns| turns.pauses.check(&shared));
    }
}
