//! The node to which a session is about to move, until the session continues on it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use standin_wire::limits::FrameLimits;
use standin_wire::refusal::Refusal;
use standin_wire::server::{self, Frame};
use standin_wire::{Info, Move, WireError, encode};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

use super::{LEAVE_ANSWERS, Task};
use crate::dial::DialledNode;

/// Bytes reserved for each read from a node that learns the subscriptions.
const READ_BYTES: usize = 4096;

type PendingArrival = Pin<Box<dyn Future<Output = Result<DialledNode, ArrivalError>> + Send>>;

/// The node to which a session is about to move.
pub(super) enum Next {
    /// Connected. The session leaves its present node without MOVE.
    Drained(DialledNode),
    /// Connected. It is to learn the subscriptions at the next frame boundary.
    Connected(DialledNode),
    /// It learns the subscriptions.
    Learning(PendingArrival),
    /// It knows the subscriptions.
    Ready(DialledNode),
}

/// Reason why a node did not learn the subscriptions of a session.
#[derive(Debug, Error)]
pub(super) enum ArrivalError {
    #[error("not ready within {0:?}")]
    Timeout(Duration),
    #[error("connection broke: {0}")]
    Broke(#[from] std::io::Error),
    #[error("not a NATS server: {0}")]
    NotNats(#[from] WireError),
    #[error("closed the connection")]
    Closed,
    #[error("refused: {0}")]
    Refused(String),
    #[error("it is about to shut down")]
    LameDuck,
}

impl Task {
    /// Takes the node to which the session is about to move. Begins the move with MOVE if both nodes know it.
    pub(super) fn next_connected(&mut self, dialled: DialledNode, now: Instant) {
        let next = if self.session.can_move(&dialled.info) {
            self.session.begin_arrival();
            Next::Connected(dialled)
        } else {
            self.session.next_ready(LEAVE_ANSWERS, now, &mut self.sockets);
            Next::Drained(dialled)
        };
        self.next = Some(Box::new(next));
    }

    /// Continues with the node to which the session is about to move. Returns whether there was progress.
    pub(super) fn advance_next(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(next) = self.next.take() else {
            return false;
        };
        if !self.session.expects_next() {
            return true;
        }
        let now = Instant::now();
        let (next, progress) = match *next {
            Next::Connected(dialled) => match self.session.arrival_lines(&dialled.node, &dialled.info) {
                Some(lines) => {
                    let limit = self.session.arrival_timeout();
                    (Next::Learning(Box::pin(learn(dialled, lines, limit))), true)
                }
                None => (Next::Connected(dialled), false),
            },
            Next::Learning(mut learning) => match learning.as_mut().poll(cx) {
                Poll::Pending => (Next::Learning(learning), false),
                Poll::Ready(Ok(dialled)) => {
                    self.session.arrived(LEAVE_ANSWERS, now, &mut self.sockets);
                    (Next::Ready(dialled), true)
                }
                Poll::Ready(Err(error)) => {
                    debug!(session = self.session_info.id, "planned move given up: {error}");
                    self.session.arrival_failed(now, &mut self.sockets);
                    return true;
                }
            },
            other => (other, false),
        };
        self.next = Some(Box::new(next));
        progress
    }

    /// Takes the next node after the session has left or lost the present one. `None` if the session cannot continue on it at once.
    pub(super) fn take_next(&mut self) -> Option<DialledNode> {
        match *self.next.take()? {
            Next::Drained(dialled) | Next::Ready(dialled) => Some(dialled),
            Next::Connected(_) | Next::Learning(_) => None,
        }
    }
}

/// Sends `lines` to the node, and returns when the node knows the subscriptions in them. Messages that it sends before are kept.
async fn learn(
    mut dialled: DialledNode,
    lines: Vec<u8>,
    limit: Duration,
) -> Result<DialledNode, ArrivalError> {
    let learned = tokio::time::timeout(limit, exchange(&mut dialled, &lines)).await;
    learned.map_err(|_| ArrivalError::Timeout(limit))??;
    Ok(dialled)
}

async fn exchange(dialled: &mut DialledNode, lines: &[u8]) -> Result<(), ArrivalError> {
    let stream = &mut dialled.stream;
    stream.write_all(lines).await?;
    stream.flush().await?;
    let mut received = std::mem::take(&mut dialled.after_info);
    let mut messages = Vec::new();
    loop {
        let Some((frame, len)) = server::decode(&received, FrameLimits::SERVER)? else {
            received.reserve(READ_BYTES);
            if stream.read_buf(&mut received).await? == 0 {
                return Err(ArrivalError::Closed);
            }
            continue;
        };
        let mut is_ready = false;
        match frame {
            Frame::Message(_) => messages.extend_from_slice(&received[..len]),
            Frame::Move(json) => match Move::parse(json) {
                Ok(Move::Ready) => is_ready = true,
                Ok(Move::Refused { why }) => return Err(ArrivalError::Refused(why)),
                Ok(_) | Err(_) => {}
            },
            Frame::Info(json) => {
                if let Ok(info) = Info::parse(json) {
                    dialled.info = info;
                }
                if dialled.info.ldm {
                    return Err(ArrivalError::LameDuck);
                }
            }
            Frame::Ping => {
                stream.write_all(encode::PONG).await?;
                stream.flush().await?;
            }
            // A subscription that this node refuses is refused by the present one too.
            Frame::Err(text) if is_about_a_command(text) => {}
            Frame::Err(text) => {
                return Err(ArrivalError::Refused(String::from_utf8_lossy(text).into_owned()));
            }
            Frame::Ok | Frame::Pong => {}
        }
        received.drain(..len);
        if is_ready {
            messages.append(&mut received);
            dialled.after_info = messages;
            return Ok(());
        }
    }
}

/// Returns whether the connection stays open after this `-ERR`.
fn is_about_a_command(text: &[u8]) -> bool {
    matches!(
        Refusal::of(text),
        Refusal::Command | Refusal::Subscription | Refusal::Unknown
    )
}
