//! The state that a sidecar leaves to the program that replaces it in the same process (SIGUSR2, promise S13). The steps are in `upgrade.rs`.
//! Here and elsewhere, the program that leaves the state is the *former* program, and the one that takes it is the *next* program.
//!
//! *Form.* A file in memory ([`HandoverFile`]) with a sequence of parts. Each part is its length (4 bytes, big-endian) and a [`Part`] in
//! MessagePack, with the names of all fields. There is one part for each session ([`SessionRecord`]),
//! one [`SidecarRecord`] and one [`Opening`], in any order. Sockets are in it by the numbers of their file descriptors.
//!
//! *Versions.* [`FORMAT`] is the version of the form. A program reads its own format, the one before, and the one after, so an upgrade and a
//! downgrade by one step work. So that this is possible:
//!
//! - A new field has `#[serde(default)]`, and the session goes on if an older program drops it.
//! - A field that is no longer used is written for one more format.
//! - A change of another kind, such as a new variant of an enum, is made in two steps: first a format that reads it, then one that writes it.
//!
//! A program that cannot read a state says so in the check before it replaces the other one, so nothing is lost.

mod part;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use standin_daemon::descriptors;
use standin_daemon::handover_file::HandoverFile;
use thiserror::Error;
use tracing::{error, warn};

pub(crate) use part::{ListenerRecord, NextRecord, Part, SessionRecord, SidecarRecord, TaskRecord};

/// Version of the form.
pub(crate) const FORMAT: u32 = 1;

/// Limit on the bytes of one part. The buffers of a session are limited by the settings, which may be large.
const PART_BYTES_MAX: u32 = 1 << 30;

/// Reason why a state cannot be read.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// The file cannot be read.
    #[error("the sidecar's state cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A part is not valid.
    #[error("part {number} of the sidecar's state cannot be read: {source}")]
    Part {
        /// Number of the part, from 0.
        number: usize,
        /// What is wrong.
        source: rmp_serde::decode::Error,
    },
    /// The program is too old or too new.
    #[error(
        "the sidecar's state has format {format} (written by version {version}), and this program reads {}, {FORMAT} and {} only",
        FORMAT - 1,
        FORMAT + 1
    )]
    Format {
        /// Version of the program that has written the state.
        version: String,
        /// Its format.
        format: u32,
    },
    /// The opening or the part about the sidecar is missing, or could not be read.
    #[error("the sidecar's state does not name its format, or has no part about the sidecar itself")]
    Incomplete,
}

/// The format of the state, and the program that has written it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) format: u32,
    /// Version of the program.
    pub(crate) version: String,
    /// Path of the program on disk. Symbolic links are kept.
    pub(crate) program: PathBuf,
}

/// Encodes one part, with its length.
///
/// # Errors
/// An error if the part is too long.
pub(crate) fn encode_part<S: Serialize>(part: &Part<S>) -> io::Result<Vec<u8>> {
    // Enough for an idle session, so that the bytes are not moved while they grow.
    let mut bytes = Vec::with_capacity(2048);
    bytes.extend([0; size_of::<u32>()]);
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    part.serialize(&mut serializer).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len() - size_of::<u32>()).ok();
    let len = len.filter(|len| *len <= PART_BYTES_MAX);
    let len = len.ok_or_else(|| {
        io::Error::other(format!(
            "a part of the state has more than {PART_BYTES_MAX} bytes"
        ))
    })?;
    bytes[..size_of::<u32>()].copy_from_slice(&len.to_be_bytes());
    Ok(bytes)
}

/// Splits a state into its parts.
fn parts(mut state: &[u8]) -> io::Result<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !state.is_empty() {
        let part = state.split_first_chunk().and_then(|(len, rest)| {
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            rest.split_at_checked(len)
        });
        let (part, rest) = part.ok_or(io::ErrorKind::UnexpectedEof)?;
        parts.push(part);
        state = rest;
    }
    Ok(parts)
}

/// A part and its number.
type Decoded = (usize, Result<Part, rmp_serde::decode::Error>);

/// Decodes the parts with all processors, because all sessions rest meanwhile. Sessions are not returned if `only_checks`.
fn decode_all(parts: &[&[u8]], only_checks: bool) -> Vec<Decoded> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let numbered: Vec<(usize, &[u8])> = parts.iter().copied().enumerate().collect();
    let is_kept = |(_, part): &Decoded| !(only_checks && matches!(part, Ok(Part::Session(_))));
    let decode = |parts: &[(usize, &[u8])]| {
        let decoded = parts
            .iter()
            .map(|(number, part)| (*number, rmp_serde::from_slice(part)));
        decoded.filter(is_kept).collect()
    };
    std::thread::scope(|scope| {
        let shares = numbered.chunks(parts.len().div_ceil(threads).max(1));
        let threads: Vec<_> = shares
            .map(|share| scope.spawn(move || -> Vec<_> { decode(share) }))
            .collect();
        let decoded = threads.into_iter().flat_map(|thread| match thread.join() {
            Ok(decoded) => decoded,
            // In the check, this ends the program, and the running one goes on.
            Err(panic) => std::panic::resume_unwind(panic),
        });
        decoded.collect()
    })
}

/// The state of the former program, complete in memory.
pub struct Handover {
    pub(crate) opening: Opening,
    pub(crate) sidecar: SidecarRecord,
    #[expect(
        clippy::vec_box,
        reason = "records are large, and moving them is part of the pause of an upgrade"
    )]
    pub(crate) sessions: Vec<Box<SessionRecord>>,
    /// A part could not be read, so there may be sockets that nobody knows.
    pub(crate) is_partial: bool,
}

impl Handover {
    /// Reads the whole state. With `only_checks`, a part that cannot be read is an error, and no sessions are returned. Otherwise, such a
    /// part is logged and left out.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub fn read(file: &mut HandoverFile, only_checks: bool) -> Result<Self, HandoverError> {
        let state = file.contents()?;
        let parts = parts(&state)?;
        let (mut opening, mut sidecar, mut sessions, mut is_partial) = (None, None, Vec::new(), false);
        for (number, part) in decode_all(&parts, only_checks) {
            match part {
                Ok(Part::Opening(read)) => opening = Some(readable(read)?),
                Ok(Part::Sidecar(record)) => sidecar = Some(*record),
                Ok(Part::Session(record)) => sessions.push(record),
                Err(source) if !only_checks => {
                    is_partial = true;
                    error!(
                        part = number,
                        "part of the sidecar's state cannot be read: {source}"
                    );
                }
                Err(source) => return Err(HandoverError::Part { number, source }),
            }
        }
        match (opening, sidecar) {
            (Some(opening), Some(sidecar)) => Ok(Self {
                opening,
                sidecar,
                sessions,
                is_partial,
            }),
            _ => Err(HandoverError::Incomplete),
        }
    }

    /// Returns the path of the program on disk. Symbolic links are kept.
    #[must_use]
    pub fn program(&self) -> &PathBuf {
        &self.opening.program
    }
}

fn readable(opening: Opening) -> Result<Opening, HandoverError> {
    if opening.format.abs_diff(FORMAT) <= 1 {
        return Ok(opening);
    }
    Err(HandoverError::Format {
        version: opening.version,
        format: opening.format,
    })
}

/// Returns the socket that the former program left under this number. Logs why there is none.
pub(crate) fn taken(number: RawFd) -> Option<OwnedFd> {
    let taken = descriptors::take(number);
    taken
        .inspect_err(|error| warn!("socket of the former program is lost: {error}"))
        .ok()
}

/// Returns the time since `began`, in milliseconds, for logs.
pub(crate) fn millis_since(began: Instant) -> f64 {
    began.elapsed().as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use standin_daemon::handover_file::HandoverWriter;

    use super::*;
    use crate::session::Session;
    use crate::session::tests::bench::{Bench, identity, policy};

    fn opening(format: u32) -> Opening {
        Opening {
            format,
            version: "1.2.3".to_owned(),
            program: "/usr/bin/standin-proxy".into(),
        }
    }

    #[test]
    fn the_format_before_and_the_one_after_are_read_and_no_others() {
        for (format, is_readable) in [
            (FORMAT - 1, true),
            (FORMAT, true),
            (FORMAT + 1, true),
            (FORMAT + 2, false),
        ] {
            assert_eq!(readable(opening(format)).is_ok(), is_readable, "{format}");
        }
        let text = readable(opening(FORMAT + 2)).err().unwrap().to_string();
        assert!(
            text.contains("1.2.3") && text.contains(&format!("format {}", FORMAT + 2)),
            "{text}"
        );
    }

    /// Adds a field to each struct: to each map whose keys are names of fields.
    fn add_fields(value: &mut rmpv::Value) {
        match value {
            rmpv::Value::Map(pairs) => {
                let is_name = |(key, _): &(rmpv::Value, rmpv::Value)| {
                    key.as_str()
                        .is_some_and(|key| key.starts_with(|first: char| first.is_ascii_lowercase()))
                };
                let is_struct = !pairs.is_empty() && pairs.iter().all(is_name);
                pairs.iter_mut().for_each(|(_, value)| add_fields(value));
                if is_struct {
                    pairs.push((
                        "added_later".into(),
                        rmpv::Value::Array(vec![1.into(), "x".into()]),
                    ));
                }
            }
            rmpv::Value::Array(values) => values.iter_mut().for_each(add_fields),
            _ => {}
        }
    }

    /// A program of the next version may add fields.
    #[test]
    fn a_session_with_fields_of_a_later_version_is_read() {
        let mut bench = Bench::connected(policy());
        bench.component("SUB a q 1\r\nUNSUB 1 5\r\nSUB b 2\r\nPUB a 1\r\nx\r\nPING\r\nPUB a 3\r\nx");
        let state = rmp_serde::to_vec_named(&bench.session).unwrap();
        let mut state: rmpv::Value = rmp_serde::from_slice(&state).unwrap();
        add_fields(&mut state);
        let state = rmp_serde::to_vec_named(&state).unwrap();
        assert!(state.windows(11).filter(|name| name == b"added_later").count() > 8);
        let session: Session = rmp_serde::from_slice(&state).unwrap();
        bench.session = session.restored(policy().into(), identity().into());
        bench.component("yz\r\n");
        assert!(bench.sent().ends_with("PUB a 3\r\nxyz\r\n"));
        bench.node("MSG a 1 1\r\nx\r\nPONG\r\n");
        assert_eq!(bench.seen(), "MSG a 1 1\r\nx\r\nPONG\r\n");
    }

    /// The file is from the first program with format 1. One component has sent half a publish and has received two of five messages, another
    /// one has received nothing. As long as format 1 must be read, so must this file.
    #[test]
    fn a_state_of_format_1_is_read() {
        let mut file = HandoverWriter::create().unwrap();
        file.write_all(include_bytes!("handover/format_1.state")).unwrap();
        let handover = Handover::read(&mut file.seal().unwrap(), false).unwrap();
        assert_eq!(handover.sidecar.listeners, [["127.0.0.1:4301"]]);
        let labels = handover
            .sessions
            .iter()
            .map(|record| record.session.client_label());
        let names: Vec<_> = labels.map(|label| label.unwrap().name.clone()).collect();
        assert_eq!(names, [Some("old".into()), None]);
        let mut bench = Bench::connected(policy());
        let session = handover.sessions.into_iter().next().unwrap().session;
        bench.session = session.restored(policy().into(), identity().into());
        bench.component("f-x\r\n");
        assert_eq!(bench.sent(), "PUB c 6\r\nhalf-x\r\n");
        bench.node("+OK\r\n");
        assert_eq!(bench.seen(), "+OK\r\n");
        bench.lose();
        bench.node_up();
        let sent = bench.sent();
        assert!(
            sent.contains("SUB a.* 1\r\n") && sent.contains("SUB b group 2\r\nUNSUB 2 3\r\n"),
            "{sent}"
        );
    }

    #[test]
    fn a_state_that_is_cut_off_is_refused() {
        let file = encode_part(&Part::<&Session>::Opening(opening(FORMAT))).unwrap();
        for cut in 1..file.len() {
            assert!(parts(&file[..cut]).is_err(), "{cut}");
        }
        assert!(parts(&[0xff; 8]).is_err(), "too long");
        let two = file.repeat(2);
        let decoded = decode_all(&parts(&two).unwrap(), false);
        assert!(matches!(
            &decoded[..],
            [(0, Ok(Part::Opening(_))), (1, Ok(Part::Opening(_)))]
        ));
    }
}
