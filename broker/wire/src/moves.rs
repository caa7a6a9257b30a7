//! The argument of MOVE, an extension of the NATS protocol: a sidecar and two brokers move a client from one to the other, and no
//! message is lost or delivered twice (promise S13).
//!
//! A broker that knows MOVE has `moves` in its INFO. The sidecar has a connection to the *old* broker and one to the *new* broker:
//!
//! | | to the old broker | to the new broker |
//! |---|---|---|
//! | 1 | | `arrive` after CONNECT, then each SUB (with UNSUB, if it has a max), then PING |
//! | 2 | | ← `ready`, right after the PONG: all brokers have acked the new subscriptions |
//! | 3 | `leave`, after the client's last frame | |
//! | 4 | ← `left`, after the last message | |
//! | 5 | | `go`, then the client's next frames |
//! | 6 | | ← `settled`: the client can be moved again |
//!
//! Either broker may answer `refused` instead of `ready` or of the first `left`. The client then stays on the old broker.
//!
//! If `left` does not come soon, the sidecar sends publishes and PINGs to the old broker again. When `left` has come, it repeats step 3 with
//! another id. The order of these publishes and later ones is then kept too. If this second `leave` is refused, the
//! move goes on, but these publishes may be reordered with later ones.

use serde::{Deserialize, Serialize};

/// The argument of MOVE, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Move {
    /// Sidecar → new broker: the client's subscriptions follow. Before `go`, the broker sends only messages after
    /// the cut.
    Arrive {
        /// The move. Random, and different for each move.
        id: MoveId,
        /// `server_id` of the old broker.
        from: String,
    },
    /// New broker → sidecar: every broker knows the subscriptions.
    Ready,
    /// Sidecar → old broker: no SUB, UNSUB or CONNECT follows. The broker delivers the messages before the cut.
    Leave {
        /// The move: that of `arrive`, or for a second `leave` another one.
        id: MoveId,
        /// `server_id` of the new broker.
        to: String,
    },
    /// Old broker → sidecar: no message follows.
    Left,
    /// Sidecar → new broker: the old broker delivers nothing more, because it has left or is lost.
    Go,
    /// New broker → sidecar: the whole cluster delivers to the client here. It can be moved again.
    Settled,
    /// Broker → sidecar: the move is not possible now.
    Refused {
        /// The reason, for the log.
        why: String,
    },
}

/// Identifies a move. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MoveId(pub u128);

impl From<MoveId> for String {
    fn from(id: MoveId) -> Self {
        format!("{:032x}", id.0)
    }
}

impl TryFrom<String> for MoveId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // `from_str_radix` accepts a leading `+`, and the protocol does not.
        u128::from_str_radix(text.strip_prefix('+').map_or(&*text, |_| ""), 16).map(Self)
    }
}

impl Move {
    /// Parses the argument of MOVE.
    ///
    /// # Errors
    /// The error of `serde_json` if `json` is not a step of a move.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Appends the line `MOVE {json}\r\n`, which is the same in both directions.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MOVE ");
        // The serialization of strings cannot fail, and neither can writing to a vector.
        let _ = serde_json::to_writer(&mut *out, self);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{self, Frame};
    use crate::limits::FrameLimits;

    #[test]
    fn each_step_is_decoded_as_it_was_encoded() {
        let (id, name) = (MoveId(7 << 100), || "N1".to_owned());
        for step in [
            Move::Arrive { id, from: name() },
            Move::Ready,
            Move::Leave { id, to: name() },
            Move::Left,
            Move::Go,
            Move::Settled,
            Move::Refused { why: name() },
        ] {
            let mut line = Vec::new();
            step.encode(&mut line);
            let Some((Frame::Move(json), length)) = client::decode(&line, FrameLimits::CLIENT).unwrap()
            else {
                panic!("{}", line.escape_ascii())
            };
            assert_eq!((Move::parse(json).unwrap(), length), (step, line.len()));
        }
        assert!(Move::parse(br#"{"step":"arrive","id":"x","from":""}"#).is_err());
        assert!(Move::parse(br#"{"step":"arrive","id":"+1","from":""}"#).is_err());
        assert!(Move::parse(br#"{"step":"arrive"}"#).is_err());
    }
}
