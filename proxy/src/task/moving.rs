//! The node to which a session is about to move, until the session continues on it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use standin_wire::limits::FrameLimits;
use standin_wire::refusal::Refusal;
use standin_wire::server::{self, Frame};
use standin_wire::{Info, Move, WireError, encode};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tracing::debug;

use super::Task;
use crate::dial::DialledNode;
use crate::session::{ArrivalLines, SETTLING};

/// Bytes reserved for each read from a node that learns the subscriptions.
const READ_BYTES: usize = 4096;

/// Limit on the bytes that are kept from a node while it learns the subscriptions. The component gets them after the switch.
const KEPT_BYTES_MAX: usize = 8 << 20;

type PendingArrival = Pin<Box<dyn Future<Output = Result<DialledNode, ArrivalError>> + Send>>;

/// The node to which a session is about to move.
pub(super) enum Next {
    /// Connected. It learns nothing before the session has left its present node.
    Drained(DialledNode),
    /// Connected, without MOVE. The present node's messages are noted until this timer ends. `None` while copies of the last move may still
    /// come.
    Noting(DialledNode, Option<Pin<Box<Sleep>>>),
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
    #[error("node closed the connection")]
    Closed,
    #[error("refused: {0}")]
    Refused(String),
    #[error("node is about to shut down")]
    LameDuck,
    #[error("node sent more than {KEPT_BYTES_MAX} bytes")]
    TooMuch,
}

impl Task {
    /// Takes the node to which the session is about to move. Begins the move.
    pub(super) fn next_connected(&mut self, mut dialled: DialledNode, now: std::time::Instant) {
        dialled.was_away = self.shared.book.is_away(&dialled.node.client);
        let next = if self.session.can_move(&dialled.info) {
            self.session.begin_arrival();
            if self.session.has_moves(&dialled.info) {
                Next::Connected(dialled)
            } else {
                Next::Noting(dialled, None)
            }
        } else {
            self.session.next_ready(now, &mut self.sockets);
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
        let now = std::time::Instant::now();
        if let Next::Noting(dialled, _) | Next::Connected(dialled) = &*next
            && self.has_gone_away(dialled)
        {
            // The other sessions know it. nats-server announces its shutdown only to clients that have got a PONG.
            debug!(session = self.session_info.id, node = %dialled.node.client, "planned move given up: node leaves, or has failed");
            self.session.arrival_failed(now, &mut self.sockets);
            return true;
        }
        let (next, progress) = match *next {
            Next::Noting(dialled, None) => {
                let begins = self.session.begin_notes();
                let time = begins.then(|| Box::pin(tokio::time::sleep(SETTLING)));
                (Next::Noting(dialled, time), begins)
            }
            Next::Noting(dialled, Some(mut time)) => match time.as_mut().poll(cx) {
                Poll::Ready(()) => (Next::Connected(dialled), true),
                Poll::Pending => (Next::Noting(dialled, Some(time)), false),
            },
            Next::Connected(dialled) => match self.session.arrival_lines(&dialled.node, &dialled.info) {
                Some(lines) => {
                    let limit = self.session.arrival_timeout();
                    (Next::Learning(Box::pin(learn(dialled, lines, limit))), true)
                }
                None => (Next::Connected(dialled), false),
            },
            Next::Learning(mut learning) => match learning.as_mut().poll(cx) {
                Poll::Pending => (Next::Learning(learning), false),
                Poll::Ready(Ok(dialled)) if self.has_gone_away(&dialled) => {
                    self.session.arrival_failed(now, &mut self.sockets);
                    return true;
                }
                Poll::Ready(Ok(dialled)) => {
                    self.session.arrived(now, &mut self.sockets);
                    (Next::Ready(dialled), true)
                }
                Poll::Ready(Err(error)) => {
                    debug!(session = self.session_info.id, %error, "planned move given up");
                    self.session.arrival_failed(now, &mut self.sockets);
                    return true;
                }
            },
            other => (other, false),
        };
        self.next = Some(Box::new(next));
        progress
    }

    /// Returns whether the node has failed, or has announced its shutdown, since it was dialled.
    fn has_gone_away(&self, dialled: &DialledNode) -> bool {
        !dialled.was_away && self.shared.book.is_away(&dialled.node.client)
    }

    /// Takes the next node after the session has left or lost the present one. `None` if the session cannot continue on it at once.
    pub(super) fn take_next(&mut self) -> Option<DialledNode> {
        match *self.next.take()? {
            Next::Drained(dialled) | Next::Ready(dialled) => Some(dialled),
            Next::Noting(..) | Next::Connected(_) | Next::Learning(_) => None,
        }
    }
}

/// Sends `lines` to the node, and returns when the node knows the subscriptions in them. Messages that it sends before are kept.
async fn learn(
    dialled: DialledNode,
    lines: ArrivalLines,
    limit: Duration,
) -> Result<DialledNode, ArrivalError> {
    let mut learning = Learning {
        received: Vec::new(),
        messages: Vec::new(),
        dialled,
    };
    learning.received = std::mem::take(&mut learning.dialled.after_info);
    let learned = tokio::time::timeout(limit, learning.exchange(&lines)).await;
    learned.map_err(|_| ArrivalError::Timeout(limit))??;
    let Learning {
        mut dialled,
        received,
        mut messages,
    } = learning;
    messages.extend_from_slice(&received);
    dialled.after_info = messages;
    Ok(dialled)
}

/// A node that learns subscriptions.
struct Learning {
    dialled: DialledNode,
    /// Bytes that were not parsed.
    received: Vec<u8>,
    /// Messages, for the component.
    messages: Vec<u8>,
}

/// An answer of a node that learns subscriptions.
#[derive(PartialEq, Eq)]
enum Answer {
    Pong,
    /// `ready`, see [`standin_wire::moves`].
    Ready,
}

impl Learning {
    async fn exchange(&mut self, lines: &ArrivalLines) -> Result<(), ArrivalError> {
        self.send(&lines.first).await?;
        let Some(then) = &lines.then else {
            return self.until(Answer::Ready).await;
        };
        self.until(Answer::Pong).await?;
        let settled_at = Instant::now() + SETTLING;
        while self.answer(Some(settled_at)).await?.is_some() {}
        self.send(then).await?;
        self.until(Answer::Pong).await
    }

    async fn send(&mut self, lines: &[u8]) -> Result<(), ArrivalError> {
        self.dialled.stream.write_all(lines).await?;
        Ok(self.dialled.stream.flush().await?)
    }

    async fn until(&mut self, awaited: Answer) -> Result<(), ArrivalError> {
        while self.answer(None).await?.is_some_and(|answer| answer != awaited) {}
        Ok(())
    }

    /// Returns the next answer. `None` if there is none until this time.
    async fn answer(&mut self, until: Option<Instant>) -> Result<Option<Answer>, ArrivalError> {
        let mut parsed = 0;
        let answer = loop {
            let bytes = &self.received[parsed..];
            let Some((frame, len)) = server::decode(bytes, FrameLimits::SERVER)? else {
                self.received.drain(..parsed);
                parsed = 0;
                if self.messages.len() + self.received.len() > KEPT_BYTES_MAX {
                    return Err(ArrivalError::TooMuch);
                }
                self.received.reserve(READ_BYTES);
                let read = self.dialled.stream.read_buf(&mut self.received);
                let read = match until {
                    Some(until) => tokio::time::timeout_at(until, read).await,
                    None => Ok(read.await),
                };
                match read {
                    Err(_) => return Ok(None),
                    Ok(Ok(0)) => return Err(ArrivalError::Closed),
                    Ok(read) => read?,
                };
                continue;
            };
            let mut answer = None;
            match frame {
                Frame::Message(_) => self.messages.extend_from_slice(&bytes[..len]),
                Frame::Move(json) => match Move::parse(json) {
                    Ok(Move::Ready) => answer = Some(Answer::Ready),
                    Ok(Move::Refused { why }) => return Err(ArrivalError::Refused(why)),
                    Ok(_) | Err(_) => {}
                },
                Frame::Info(json) => {
                    if let Ok(info) = Info::parse(json) {
                        self.dialled.info = info;
                    }
                    if self.dialled.info.ldm {
                        return Err(ArrivalError::LameDuck);
                    }
                }
                Frame::Ping => {
                    self.dialled.stream.write_all(encode::PONG).await?;
                    self.dialled.stream.flush().await?;
                }
                // A subscription that this node refuses is refused by the present one too.
                Frame::Err(text) if is_about_a_command(text) => {}
                Frame::Err(text) => {
                    return Err(ArrivalError::Refused(String::from_utf8_lossy(text).into_owned()));
                }
                Frame::Pong => answer = Some(Answer::Pong),
                Frame::Ok => {}
            }
            parsed += len;
            if let Some(answer) = answer {
                break answer;
            }
        };
        self.received.drain(..parsed);
        Ok(Some(answer))
    }
}

/// Returns whether the connection stays open after this `-ERR`.
fn is_about_a_command(text: &[u8]) -> bool {
    matches!(
        Refusal::of(text),
        Refusal::Command | Refusal::Subscription | Refusal::Unknown
    )
}
