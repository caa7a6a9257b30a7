//! Writes the log lines about all sessions together: outages of all nodes, and lost messages. Each event gives one
//! line, however many sessions it concerns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::losses::Loss;
use crate::recovery::OutageReport;
use crate::sidecar_state::SidecarState;

/// Time for which events are gathered before a line is written. Most sessions notice the same event within this time.
const GATHERED_FOR: Duration = Duration::from_millis(200);
/// Pause after a line about lost messages.
const LOSSES_PAUSE: Duration = Duration::from_millis(800);

/// Interval between two checks for a due line about an outage, if nothing changes meanwhile.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Writes the lines until the task is ended.
pub(crate) async fn run(shared: Arc<SidecarState>) {
    tokio::join!(log_outages(&shared), log_losses(&shared));
}

async fn log_outages(shared: &SidecarState) {
    loop {
        // The line about the end of an outage can become due because time passes, without any change.
        let _ = tokio::time::timeout(OUTAGE_INTERVAL, shared.recovery.changed()).await;
        tokio::time::sleep(GATHERED_FOR).await;
        while let Some(report) = shared
            .recovery
            .report(shared.policy.load().settle, Instant::now())
        {
            log_outage(&report);
        }
    }
}

fn log_outage(report: &OutageReport) {
    match report {
        OutageReport::Began { sessions_waiting } => {
            warn!(sessions_waiting, "no node reachable");
        }
        OutageReport::Expired { sessions } => {
            warn!(
                sessions,
                "sessions closed after session.outage_secs without a node"
            );
        }
        OutageReport::Ended {
            lasted,
            sessions,
            held_bytes,
            resent,
            lost,
        } => warn!(
            outage_ms = lasted.as_millis() as u64,
            sessions, held_bytes, resent, lost, "node reachable again"
        ),
    }
}

async fn log_losses(shared: &SidecarState) {
    loop {
        shared.losses.changed().await;
        tokio::time::sleep(GATHERED_FOR).await;
        log_losses_now(shared);
        tokio::time::sleep(LOSSES_PAUSE).await;
    }
}

/// Logs the messages lost since the last line.
pub(crate) fn log_losses_now(shared: &SidecarState) {
    for loss in [Loss::InDoubt, Loss::Abandoned] {
        let Some(gathered) = shared.losses.take(loss) else {
            continue;
        };
        warn!(
            reason = loss.as_str(),
            messages = gathered.subjects.total(),
            sessions = gathered.sessions,
            // The size of publishes in doubt is not known.
            abandoned_bytes = matches!(loss, Loss::Abandoned).then_some(gathered.abandoned_bytes),
            by_subject = %gathered.subjects,
            "messages lost"
        );
    }
}
