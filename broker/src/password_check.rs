//! Checks of bcrypt hashes, away from the threads that carry messages.
//!
//! A check takes a tenth of a second of CPU time and more. So it is made by threads of its own with a low priority, one for two cores.
//! The queue before them is bounded, and a check whose client has gone or is out of time is skipped, so a storm of logins delays
//! logins, but not messages. A password that was right once is known again without a check (`auth.rs`).

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use standin_daemon::settings::Secret;
use tracing::error;

use crate::auth::User;
use crate::outbox::Outbox;

/// Maximum number of waiting checks.
const WAITING_MAX: usize = 4096;
/// Nice value of the threads.
const NICE: i32 = 10;

/// A check that a client waits for.
#[derive(Debug)]
pub(crate) struct PasswordCheck {
    user: Arc<User>,
    given: Secret,
    verdict: Arc<OnceLock<bool>>,
    /// The client to be woken.
    client: Arc<Outbox>,
    /// End of the client's time for logging in.
    until: Instant,
}

/// The threads that check hashes. They start with the first check.
#[derive(Debug, Default)]
pub(crate) struct PasswordChecker {
    queue: OnceLock<SyncSender<PasswordCheck>>,
}

impl PasswordChecker {
    /// Begins to check whether `given` is the password of `user`. The result appears in the returned cell, and `client` is woken then.
    /// If too many checks wait, the result never appears, and the client runs out of time.
    pub(crate) fn begin(
        &self,
        user: &Arc<User>,
        given: Secret,
        client: &Arc<Outbox>,
        until: Instant,
    ) -> Arc<OnceLock<bool>> {
        let verdict = Arc::default();
        let check = PasswordCheck {
            user: Arc::clone(user),
            given,
            verdict: Arc::clone(&verdict),
            client: Arc::clone(client),
            until,
        };
        match self.queue.get_or_init(start).try_send(check) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => error!("no thread is left that checks passwords"),
        }
        verdict
    }
}

fn start() -> SyncSender<PasswordCheck> {
    let (queue, checks) = sync_channel(WAITING_MAX);
    let checks = Arc::new(Mutex::new(checks));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores.div_ceil(2) {
        let checks = Arc::clone(&checks);
        let started = thread::Builder::new()
            .name("passwords".to_owned())
            .spawn(move || run(&checks));
        if let Err(error) = started {
            error!("cannot start a thread that checks passwords: {error}");
        }
    }
    queue
}

fn run(checks: &Mutex<Receiver<PasswordCheck>>) {
    // Without the lower priority, messages are only delayed more.
    let _ = rustix::process::setpriority_process(None, NICE);
    loop {
        let next = checks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(check) = next else { return };
        if !check.client.is_gone() && Instant::now() < check.until {
            let is_right = check.user.check_hash(&check.given);
            // Set only here.
            let _ = check.verdict.set(is_right);
            check.client.wake();
        }
    }
}
