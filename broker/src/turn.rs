//! The turns of a worker: the connections of one thread that are ready read what has come, one after the other, and what they have
//! for clients and routes is collected on one stage. It is sent once, when all that were ready have had their turn.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::closing::Reason;
use crate::outbox::Outbox;
use crate::pause::{CHECK_INTERVAL, PauseWatch};
use crate::router::Router;
use crate::shared::Shared;
use crate::stage::Stage;

/// The read buffer of a worker, in bytes. Larger reads mean fewer calls to the kernel for each message; smaller ones give way
/// to other clients sooner.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static TURNS: RefCell<Option<Turns>> = const { RefCell::new(None) };
}

/// What all connections of one thread use in turn.
struct Turns {
    router: Router,
    buffer: Vec<u8>,
    flusher: Flusher,
    pauses: PauseWatch,
}

/// Makes the present thread that of worker number `number`.
pub(crate) fn begin(number: usize, shared: &Shared) {
    let router = Router::new(number, shared.settings.load().process.match_cache_max);
    shared.flush.add_stage(&router.stage);
    TURNS.set(Some(Turns {
        router,
        buffer: vec![0; READ_BYTES],
        flusher: Flusher::default(),
        pauses: PauseWatch::new(number),
    }));
}

/// Gives one connection its turn. What `take` stages is sent when all that are ready have had theirs.
pub(crate) fn take<R>(
    pending_bytes_max: usize,
    take: impl FnOnce(&mut Router, &mut [u8], &mut PauseWatch) -> Result<R, Reason>,
) -> Result<R, Reason> {
    TURNS.with_borrow_mut(|turns| {
        let Some(Turns {
            router,
            buffer,
            flusher,
            pauses,
        }) = turns
        else {
            return Err(Reason::Shutdown);
        };
        router.trace = tracing::enabled!(tracing::Level::TRACE);
        router.stage.set_pending_bytes_max(pending_bytes_max);
        router.begin_turn();
        let taken = take(router, buffer, pauses);
        flusher.call(&router.stage);
        taken
    })
}

/// Sends at once all that is staged.
pub(crate) fn flush() {
    TURNS.with_borrow_mut(|turns| {
        if let Some(Turns { router, .. }) = turns {
            router.stage.flush();
        }
    });
}

/// Sends these bytes at once, behind what is staged for this connection.
pub(crate) fn send(outbox: &Arc<Outbox>, bytes: &[u8]) {
    TURNS.with_borrow_mut(|turns| {
        if let Some(Turns { router, .. }) = turns {
            router.stage.of(outbox).bytes.extend_from_slice(bytes);
            router.stage.flush_to(outbox);
        }
    });
}

/// The task that sends what is staged. It is woken by the first connection that stages something in a turn, and so its own turn
/// comes when all connections that were ready with that one have had theirs.
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

/// Sends what the connections of this thread stage, for ever. To be spawned on each worker.
pub(crate) async fn keep_flushing() {
    poll_fn(|cx| {
        TURNS.with_borrow_mut(|turns| {
            if let Some(Turns { router, flusher, .. }) = turns {
                if flusher.task.is_none() {
                    flusher.task = Some(cx.waker().clone());
                }
                flusher.called = false;
                router.stage.flush();
            }
        });
        Poll::<()>::Pending
    })
    .await;
}

/// Detects pauses of this worker while no connection has a turn, for ever. To be spawned on each worker.
pub(crate) async fn watch_for_pauses(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        TURNS.with_borrow_mut(|turns| {
            if let Some(Turns { pauses, .. }) = turns {
                pauses.check(&shared);
            }
        });
    }
}
