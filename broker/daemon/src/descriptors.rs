//! File descriptors that a program leaves to the program that replaces it in the same process (`execve`).
//!
//! `execve` closes each descriptor with the flag close-on-exec. Rust sets the flag on every descriptor that it opens, and [`leave`] removes
//! it. The next program finds a descriptor by its number. The flag also says whether the descriptor has an owner there: [`take`] accepts
//! only descriptors without the flag, and sets it. So no descriptor is taken twice.
//!
//! *Unsafe code.* This is the only file with `unsafe`, because no safe interface makes an owned descriptor of a number: the crate `listenfd`
//! does so only for numbers without a gap from 3 on.

#![allow(unsafe_code, reason = "see above")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Highest number of a standard stream. Those have owners in every program.
const STANDARD_STREAMS_MAX: RawFd = 2;

/// Leaves a descriptor open for the next program.
///
/// # Errors
/// The error of the system.
pub fn leave(number: RawFd) -> io::Result<()> {
    set_flags(number, FdFlags::empty())
}

/// Undoes [`leave`], because the next program was not executed.
///
/// # Errors
/// The error of the system.
pub fn keep(number: RawFd) -> io::Result<()> {
    set_flags(number, FdFlags::CLOEXEC)
}

fn set_flags(number: RawFd, flags: FdFlags) -> io::Result<()> {
    if number <= STANDARD_STREAMS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only its flags are set. If it is not open, the system says so.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(fcntl_setfd(descriptor, flags)?)
}

/// Takes the descriptor that the former program left under this number.
///
/// # Errors
/// An error if it is not open, or has an owner already.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    let refused = |why: &str| io::Error::other(format!("file descriptor {number} {why}"));
    if number <= STANDARD_STREAMS_MAX {
        return Err(refused("is a standard stream"));
    }
    // SAFETY: only its flags are read and set. If it is not open, the system says so.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(descriptor).map_err(|_| refused("is not open"))?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(refused("was not left by the former program"));
    }
    fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    // SAFETY: it is open. Without the flag, which is set now, nothing in this program owned it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes all descriptors that the former program left, because its state cannot be read.
pub fn close_left() {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> = open
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.into_iter().for_each(|number| drop(take(number)));
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once_and_only_if_it_was_left() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(take(one.as_raw_fd()).is_err(), "it has an owner");
        leave(one.as_raw_fd()).unwrap();
        keep(one.as_raw_fd()).unwrap();
        assert!(take(one.as_raw_fd()).is_err(), "it was kept");
        let number = one.into_raw_fd();
        leave(number).unwrap();
        let taken = std::os::unix::net::UnixStream::from(take(number).unwrap());
        assert!(take(number).is_err(), "it has an owner again");
        assert_eq!(io::Write::write(&mut &taken, b"x").unwrap(), 1);
        drop((taken, other));
        for number in [-1, 0, 2, 1_000_000] {
            assert!(take(number).is_err(), "{number}");
        }
    }
}
