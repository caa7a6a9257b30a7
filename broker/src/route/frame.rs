//! The frames between two nodes: encoding, and decoding without copies.
//!
//! A frame consists of its kind (one byte), the length of its body (unsigned LEB128), and the body. Numbers in a body are unsigned LEB128
//! as well; each text is preceded by its length. An optional text of INTEREST or NO_INTEREST is preceded by its length plus one; 0 means
//! that there is none. A receiver skips frames of unknown kinds, and bytes after the known fields of a body.
//! So nodes of different versions can work together.
//!
//! | kind | frame | body |
//! |---|---|---|
//! | 1 | HELLO | JSON, [`Hello`](super::hello::Hello) |
//! | 2 | WELCOME | – |
//! | 3 | REFUSE | JSON, [`Refusal`](super::hello::Refusal) |
//! | 4 | PEERS | JSON, a list of [`Peer`](super::hello::Peer) |
//! | 5 | INTEREST | subject, queue group, members |
//! | 6 | NO_INTEREST | subject, queue group |
//! | 7 | SYNCED | – : the complete interest has been sent |
//! | 8 | PING | token: the number of a change to be acked, or [`PROBE`] |
//! | 9 | PONG | token |
//! | 10 | MESSAGE | flags, worker of the sender (optional), how often it was passed on (optional), queue groups (optional), subject, reply (optional), headers (optional), payload (the rest) |
//! | 11 | GOODBYE | – : the node leaves; it is not dialled again unless its address is configured |
//! | 12 | DRAINING | – : the node accepts no more clients |
//! | 13 | SERVING | – : the node accepts clients from now on |
//! | 14 | CUT | move (16 bytes), run of the new node: the sender's client moves there; see [`moves`](crate::moves) |
//! | 15 | MARK | move (16 bytes), worker: this worker of the sender has made the cut |
//! | 16 | CUT_DONE | move (16 bytes): every worker of every node has made the cut |
//!
//! *Architecture invariant:* decoding never waits or allocates. If more bytes are needed, it returns `Ok(None)`.

use standin_wire::client::Publish;
use thiserror::Error;

/// The first bytes that each side sends. If they are missing, the peer speaks another protocol.
pub(crate) const PREAMBLE: &[u8; 16] = b"standin-mesh/1\r\n";
/// Maximum size of a frame: the largest payload that the settings allow, plus subjects and headers.
pub(crate) const FRAME_BYTES_MAX: usize = (64 << 20) + (4 << 20);
/// Maximum size of a frame during the handshake.
pub(crate) const GREETING_BYTES_MAX: usize = 64 * 1024;

pub(crate) const HELLO: u8 = 1;
pub(crate) const WELCOME: u8 = 2;
pub(crate) const REFUSE: u8 = 3;
pub(crate) const PEERS: u8 = 4;
const INTEREST: u8 = 5;
const NO_INTEREST: u8 = 6;
pub(crate) const SYNCED: u8 = 7;
pub(crate) const PING: u8 = 8;
pub(crate) const PONG: u8 = 9;

/// Token of a PING that only checks whether the peer is alive.
pub(crate) const PROBE: u64 = u64::MAX;
const MESSAGE: u8 = 10;
pub(crate) const GOODBYE: u8 = 11;
pub(crate) const DRAINING: u8 = 12;
pub(crate) const SERVING: u8 = 13;
const CUT: u8 = 14;
const MARK: u8 = 15;
const CUT_DONE: u8 = 16;

const HAS_REPLY: u8 = 1;
const HAS_HEADERS: u8 = 2;
const HAS_QUEUES: u8 = 4;
/// Without this flag, the message comes from worker 0.
const HAS_WORKER: u8 = 8;
const HAS_PASSES: u8 = 16;
/// The groups have no members that the sender counts. Members that are still arriving get the message.
const TO_ARRIVING: u8 = 32;
const KNOWN_FLAGS: u8 = HAS_REPLY | HAS_HEADERS | HAS_QUEUES | HAS_WORKER | HAS_PASSES | TO_ARRIVING;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    #[error("frame of {0} bytes exceeds the limit")]
    TooLarge(u64),
    #[error("number of more than 64 bits")]
    Number,
    #[error("frame of kind {0} is too short for its fields")]
    Short(u8),
    #[error("message with unknown flags {0:#04x}")]
    Flags(u8),
}

/// One frame. Its texts borrow from the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Hello(&'a [u8]),
    Welcome,
    Refuse(&'a [u8]),
    Peers(&'a [u8]),
    Interest {
        subject: &'a [u8],
        queue: Option<&'a [u8]>,
        members: u32,
    },
    NoInterest {
        subject: &'a [u8],
        queue: Option<&'a [u8]>,
    },
    Synced,
    Ping(u64),
    Pong(u64),
    Message(Message<'a>),
    Goodbye,
    Draining,
    Serving,
    Cut {
        id: &'a MoveBytes,
        to: &'a [u8],
    },
    Mark {
        id: &'a MoveBytes,
        worker: usize,
    },
    CutDone(&'a MoveBytes),
    /// A frame of a kind that this version does not know.
    Unknown(u8),
}

/// A message that is forwarded to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Queue groups. On the receiving node, one member of each gets the message.
    pub(crate) queues: Queues<'a>,
    pub(crate) passage: Passage,
    pub(crate) published: Publish<'a>,
}

/// The number of a move, big-endian. Not `u128`, whose alignment would make every frame larger.
pub(crate) type MoveBytes = [u8; 16];

/// The way of a message through the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Worker of the sending node that has staged the message.
    pub(crate) worker: u16,
    /// How often a node has passed the message on because it had no member of the queue group any more.
    pub(crate) passes: u8,
    /// The message was sent because members of the queue group are still arriving on the receiving node.
    pub(crate) to_arriving: bool,
}

impl Passage {
    /// Returns whether the message is for its queue groups only. Plain subscribers get it in another frame.
    pub(crate) const fn is_for_groups_only(self) -> bool {
        self.passes > 0 || self.to_arriving
    }
}

/// Names of queue groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Queues<'a>(&'a [u8]);

impl<'a> Iterator for Queues<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // `message` has checked all lengths.
        take_text(&mut self.0)
    }
}

/// Returns the frame at the head of `bytes`, with its length, or `None` if more bytes are needed.
///
/// # Errors
/// [`FrameError`]. The bytes after an invalid frame cannot be parsed.
pub(crate) fn decode(bytes: &[u8], bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((kind, mut rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(length) = take_number(&mut rest)? else {
        return Ok(None);
    };
    if length > bytes_max as u64 {
        return Err(FrameError::TooLarge(length));
    }
    let length = length as usize;
    if rest.len() < length {
        return Ok(None);
    }
    let head = bytes.len() - rest.len();
    let frame = body(*kind, &rest[..length])?;
    Ok(Some((frame, head + length)))
}

fn body(kind: u8, mut rest: &[u8]) -> Result<Frame<'_>, FrameError> {
    let short = || FrameError::Short(kind);
    Ok(match kind {
        HELLO => Frame::Hello(rest),
        WELCOME => Frame::Welcome,
        REFUSE => Frame::Refuse(rest),
        PEERS => Frame::Peers(rest),
        INTEREST | NO_INTEREST => {
            let subject = take_text(&mut rest).ok_or_else(short)?;
            let queue = take_optional_text(&mut rest).ok_or_else(short)?;
            if kind == NO_INTEREST {
                return Ok(Frame::NoInterest { subject, queue });
            }
            let members = take_number(&mut rest)?.ok_or_else(short)?;
            Frame::Interest {
                subject,
                queue,
                members: u32::try_from(members).unwrap_or(u32::MAX),
            }
        }
        SYNCED => Frame::Synced,
        PING => Frame::Ping(take_number(&mut rest)?.ok_or_else(short)?),
        PONG => Frame::Pong(take_number(&mut rest)?.ok_or_else(short)?),
        MESSAGE => Frame::Message(message(rest)?),
        GOODBYE => Frame::Goodbye,
        DRAINING => Frame::Draining,
        SERVING => Frame::Serving,
        CUT => Frame::Cut {
            id: take_id(&mut rest).ok_or_else(short)?,
            to: take_text(&mut rest).ok_or_else(short)?,
        },
        MARK => Frame::Mark {
            id: take_id(&mut rest).ok_or_else(short)?,
            worker: take_number(&mut rest)?.ok_or_else(short)? as usize,
        },
        CUT_DONE => Frame::CutDone(take_id(&mut rest).ok_or_else(short)?),
        unknown => Frame::Unknown(unknown),
    })
}

fn message(mut rest: &[u8]) -> Result<Message<'_>, FrameError> {
    let short = || FrameError::Short(MESSAGE);
    let (flags, after) = rest.split_first().ok_or_else(short)?;
    rest = after;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(FrameError::Flags(*flags));
    }
    let mut passage = Passage::default();
    if flags & HAS_WORKER != 0 {
        let worker = take_number(&mut rest)?.ok_or_else(short)?;
        passage.worker = u16::try_from(worker).unwrap_or(u16::MAX);
    }
    if flags & HAS_PASSES != 0 {
        let passes = take_number(&mut rest)?.ok_or_else(short)?;
        passage.passes = u8::try_from(passes).unwrap_or(u8::MAX);
    }
    passage.to_arriving = flags & TO_ARRIVING != 0;
    let mut queues = Queues::default();
    if flags & HAS_QUEUES != 0 {
        let list = take_text(&mut rest).ok_or_else(short)?;
        let mut names = list;
        while !names.is_empty() {
            take_text(&mut names).ok_or_else(short)?;
        }
        queues = Queues(list);
    }
    let subject = take_text(&mut rest).ok_or_else(short)?;
    let reply = match flags & HAS_REPLY {
        0 => None,
        _ => Some(take_text(&mut rest).ok_or_else(short)?),
    };
    let headers = match flags & HAS_HEADERS {
        0 => None,
        _ => Some(take_text(&mut rest).ok_or_else(short)?),
    };
    let published = Publish {
        subject,
        reply,
        headers,
        payload: rest,
    };
    Ok(Message {
        queues,
        passage,
        published,
    })
}

/// Takes a number from the head of `rest`. Returns `None` if the number is incomplete.
#[inline]
fn take_number(rest: &mut &[u8]) -> Result<Option<u64>, FrameError> {
    match rest.split_first() {
        // Most numbers of a message have one byte.
        Some((byte, after)) if *byte < 0x80 => {
            *rest = after;
            Ok(Some(u64::from(*byte)))
        }
        _ => take_long_number(rest),
    }
}

/// Takes a number of any length. Not inlined, which keeps the decoding of messages small.
#[inline(never)]
fn take_long_number(rest: &mut &[u8]) -> Result<Option<u64>, FrameError> {
    let mut value = 0u64;
    for (at, byte) in rest.iter().enumerate() {
        if at == 9 && *byte > 1 {
            return Err(FrameError::Number);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[inline]
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_number(rest).ok()??;
    take_bytes(rest, length as usize)
}

fn take_id<'a>(rest: &mut &'a [u8]) -> Option<&'a MoveBytes> {
    let (id, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(id)
}

/// Takes an optional text from the head of `rest`: 0 if there is none, otherwise its length plus one, and the text.
fn take_optional_text<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match (take_number(rest).ok()?? as usize).checked_sub(1) {
        Some(length) => take_bytes(rest, length).map(Some),
        None => Some(None),
    }
}

#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// Appends `value` as LEB128.
#[inline]
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns the number of bytes that [`number`] appends.
#[inline]
const fn number_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => (usize::BITS - value.leading_zeros()).div_ceil(7) as usize,
    }
}

#[inline]
pub(crate) fn text(out: &mut Vec<u8>, text: &[u8]) {
    number(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Returns the number of bytes that [`text`] appends.
#[inline]
const fn text_len(length: usize) -> usize {
    number_len(length) + length
}

pub(crate) fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    text(out, body);
}

pub(crate) fn bare(kind: u8) -> Vec<u8> {
    vec![kind, 0]
}

/// Returns a PING or PONG.
pub(crate) fn token(kind: u8, token: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    put_token(&mut frame, kind, token);
    frame
}

/// Appends a PING or PONG.
pub(crate) fn put_token(out: &mut Vec<u8>, kind: u8, token: u64) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0]);
    number(out, token);
    out[start + 1] = (out.len() - start - 2) as u8;
}

/// Returns a CUT.
pub(crate) fn cut(id: u128, to: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    text(&mut body, to.as_bytes());
    with_body(CUT, &body)
}

/// Returns a MARK.
pub(crate) fn mark(id: u128, worker: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    number(&mut body, worker as u64);
    with_body(MARK, &body)
}

/// Returns a CUT_DONE.
pub(crate) fn cut_done(id: u128) -> Vec<u8> {
    with_body(CUT_DONE, &id.to_be_bytes())
}

fn with_body(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put(&mut frame, kind, body);
    frame
}

/// Appends INTEREST, or NO_INTEREST if `members` is `None`.
pub(crate) fn put_interest(out: &mut Vec<u8>, subject: &[u8], queue: Option<&[u8]>, members: Option<u32>) {
    let queue_len = queue.map_or(0, |queue| queue.len() + 1);
    let mut body = text_len(subject.len()) + number_len(queue_len) + queue.map_or(0, <[u8]>::len);
    if let Some(members) = members {
        body += number_len(members as usize);
    }
    out.push(if members.is_some() { INTEREST } else { NO_INTEREST });
    number(out, body as u64);
    text(out, subject);
    number(out, queue_len as u64);
    out.extend_from_slice(queue.unwrap_or_default());
    if let Some(members) = members {
        number(out, members.into());
    }
}

/// Appends the head of a message frame. The caller appends headers and payload after it. `queues` contains the names of queue groups,
/// each encoded by [`text`].
#[inline]
pub(crate) fn put_message_head(out: &mut Vec<u8>, queues: &[u8], passage: Passage, message: &Publish<'_>) {
    let (subject, headers_len) = (message.subject, message.headers.map(<[u8]>::len));
    let mut flags = 0;
    let mut body = 1 + text_len(subject.len()) + message.payload.len();
    if passage.worker > 0 {
        flags |= HAS_WORKER;
        body += number_len(passage.worker.into());
    }
    if passage.to_arriving {
        flags |= TO_ARRIVING;
    }
    if passage.passes > 0 {
        flags |= HAS_PASSES;
        body += number_len(passage.passes.into());
    }
    if !queues.is_empty() {
        flags |= HAS_QUEUES;
        body += text_len(queues.len());
    }
    if let Some(reply) = message.reply {
        flags |= HAS_REPLY;
        body += text_len(reply.len());
    }
    if let Some(length) = headers_len {
        flags |= HAS_HEADERS;
        body += text_len(length);
    }
    out.push(MESSAGE);
    number(out, body as u64);
    out.push(flags);
    if passage.worker > 0 {
        number(out, passage.worker.into());
    }
    if passage.passes > 0 {
        number(out, passage.passes.into());
    }
    if !queues.is_empty() {
        text(out, queues);
    }
    text(out, subject);
    if let Some(reply) = message.reply {
        text(out, reply);
    }
    if let Some(length) = headers_len {
        number(out, length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Frame<'_> {
        let (frame, length) = decode(bytes, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], FRAME_BYTES_MAX), Ok(None));
        }
        frame
    }

    #[test]
    fn fields_and_kinds_of_newer_versions_are_skipped() {
        let mut bytes = Vec::new();
        put(&mut bytes, PING, &[7, 1, 2, 3]);
        assert_eq!(whole(&bytes), Frame::Ping(7));
        bytes.clear();
        put(&mut bytes, 200, b"news");
        assert_eq!(whole(&bytes), Frame::Unknown(200));
    }

    #[test]
    fn invalid_frames_are_refused() {
        assert_eq!(decode(&[10, 1, 0x80], 100), Err(FrameError::Flags(0x80)));
        assert_eq!(decode(&[10, 0], 100), Err(FrameError::Short(10)));
        assert_eq!(decode(&[5, 1, 9], 100), Err(FrameError::Short(5)));
        assert_eq!(decode(&[2, 101], 100), Err(FrameError::TooLarge(101)));
        assert_eq!(decode(&[0xff; 20], 100), Err(FrameError::Number));
    }

    proptest! {
        #[test]
        fn messages_are_decoded_as_they_were_encoded(
            queues in vec(vec(any::<u8>(), 0..20), 0..4),
            subject in vec(any::<u8>(), 0..300),
            reply in option::of(vec(any::<u8>(), 0..40)),
            headers in option::of(vec(any::<u8>(), 0..40)),
            payload in vec(any::<u8>(), 0..20_000),
            worker in prop_oneof![Just(0), 0..500_u16],
            passes in 0..4_u8,
            to_arriving in any::<bool>(),
        ) {
            let passage = Passage { worker, passes, to_arriving };
            let mut list = Vec::new();
            queues.iter().for_each(|queue| text(&mut list, queue));
            let mut bytes = Vec::new();
            let published = Publish {
                subject: &subject,
                reply: reply.as_deref(),
                headers: headers.as_deref(),
                payload: &payload,
            };
            put_message_head(&mut bytes, &list, passage, &published);
            bytes.extend_from_slice(headers.as_deref().unwrap_or_default());
            bytes.extend_from_slice(&payload);
            let (frame, length) = decode(&bytes, FRAME_BYTES_MAX).unwrap().unwrap();
            prop_assert_eq!(length, bytes.len());
            let Frame::Message(message) = frame else { panic!("{frame:?}") };
            prop_assert_eq!(message.queues.map(<[u8]>::to_vec).collect::<Vec<_>>(), queues);
            prop_assert_eq!((message.published, message.passage), (published, passage));
        }

        #[test]
        fn interest_is_decoded_as_it_was_encoded(
            subject in vec(any::<u8>(), 0..300),
            queue in option::of(vec(any::<u8>(), 0..200)),
            members in any::<u32>(),
            token in any::<u64>(),
        ) {
            let mut bytes = Vec::new();
            put_interest(&mut bytes, &subject, queue.as_deref(), Some(members));
            prop_assert_eq!(whole(&bytes), Frame::Interest { subject: &subject, queue: queue.as_deref(), members });
            bytes.clear();
            put_interest(&mut bytes, &subject, queue.as_deref(), None);
            prop_assert_eq!(whole(&bytes), Frame::NoInterest { subject: &subject, queue: queue.as_deref() });
            let [ping, pong] = [PING, PONG].map(|kind| super::token(kind, token));
            prop_assert_eq!(whole(&ping), Frame::Ping(token));
            prop_assert_eq!(whole(&pong), Frame::Pong(token));
        }

        #[test]
        fn frames_of_cuts_are_decoded_as_they_were_encoded(id in any::<u128>(), worker in any::<usize>(), to in ".{0,99}") {
            let frames = [cut(id, &to), mark(id, worker), cut_done(id)];
            let to = to.as_bytes();
            let bytes = &id.to_be_bytes();
            let expected = [
                Frame::Cut { id: bytes, to },
                Frame::Mark { id: bytes, worker },
                Frame::CutDone(bytes),
            ];
            prop_assert_eq!(frames.each_ref().map(|frame| whole(frame)), expected);
        }

        #[test]
        fn decoding_random_bytes_never_panics(bytes in vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            while let Ok(Some((_, length))) = decode(&bytes[at..], 1000) {
                at += length;
            }
        }
    }
}
