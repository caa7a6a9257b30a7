//! The file in memory (memfd) through which a program leaves its state to the program that replaces it. The next program
//! finds it as its standard input. While it is written, it is locked (`flock`), so the check of the next program can start early and waits
//! for the lock. When it is complete, it is sealed: nobody can change or shorten it any more.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FlockOperation, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, flock, memfd_create,
};
use rustix::stdio::dup2_stdin;
use tracing::warn;

/// First bytes of the file. Other programs may also give a sealed file to their children.
const MAGIC: &[u8] = b"standin handover\n";

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 64 * 1024;

const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// The file while it is written.
#[derive(Debug)]
pub struct HandoverWriter(BufWriter<File>);

/// The complete file.
#[derive(Debug)]
pub struct HandoverFile(File);

impl HandoverWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// The error of the system.
    pub fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 refuse NOEXEC_SEAL. Later ones can be configured to require it (`vm.memfd_noexec`).
        let created = memfd_create("standin-handover", flags | MemfdFlags::NOEXEC_SEAL);
        let created = created.or_else(|_| memfd_create("standin-handover", flags))?;
        flock(&created, FlockOperation::LockExclusive)?;
        let mut file = File::from(created);
        // Not into the buffer: a reader looks at it before the state is complete.
        file.write_all(MAGIC)?;
        Ok(Self(BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    /// Opens the file for a process that waits until it is sealed.
    ///
    /// # Errors
    /// The error of the system.
    pub fn reader(&self) -> io::Result<OwnedFd> {
        // The lock belongs to an opened file, so a copy of the descriptor would not wait.
        let path = format!("/proc/self/fd/{}", self.0.get_ref().as_raw_fd());
        Ok(File::open(path)?.into())
    }

    /// Seals the file.
    ///
    /// # Errors
    /// The error of the system.
    pub fn seal(self) -> io::Result<HandoverFile> {
        let file = self.0.into_inner()?;
        fcntl_add_seals(&file, SEALS)?;
        flock(&file, FlockOperation::Unlock)?;
        Ok(HandoverFile(file))
    }
}

impl Write for HandoverWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl HandoverFile {
    /// Returns the file that is the standard input of this program, if the running or former program left its state there. Waits until the
    /// state is complete.
    #[must_use]
    pub fn on_stdin() -> Option<Self> {
        Self::of(io::stdin().as_fd())
    }

    fn of(descriptor: BorrowedFd<'_>) -> Option<Self> {
        // Fails for most other files, which are left alone.
        fcntl_get_seals(descriptor).ok()?;
        let mut file = Self(descriptor.try_clone_to_owned().ok()?.into());
        file.rewind().ok()?;
        flock(&file, FlockOperation::LockShared).ok()?;
        let seals = fcntl_get_seals(&file).ok()?;
        seals.contains(SEALS).then_some(file)
    }

    /// Reads the whole state.
    ///
    /// # Errors
    /// The error of the system.
    pub fn contents(&mut self) -> io::Result<Vec<u8>> {
        self.rewind()?;
        let mut contents = Vec::new();
        // The file knows its length, so that there is one read.
        self.0.read_to_end(&mut contents)?;
        Ok(contents)
    }

    /// Goes to the first byte of the state.
    fn rewind(&mut self) -> io::Result<()> {
        self.0.rewind()?;
        let mut magic = [0; MAGIC.len()];
        self.0.read_exact(&mut magic)?;
        if magic == MAGIC {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl AsFd for HandoverFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes `/dev/null` the standard input, so that the memory of a file that was there is freed.
pub fn empty_stdin() {
    let emptied = File::open("/dev/null").and_then(|null| Ok(dup2_stdin(&null)?));
    if let Err(error) = emptied {
        warn!("cannot free the memory of the former program's state: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_read_again_and_cannot_be_changed() {
        let mut writer = HandoverWriter::create().unwrap();
        writer.write_all(b"state").unwrap();
        let mut file = writer.seal().unwrap();
        for _ in 0..2 {
            assert_eq!(file.contents().unwrap(), b"state");
        }
        assert_eq!(file.bytes(), MAGIC.len() as u64 + 5);
        let mut other = file.0.try_clone().unwrap();
        assert!(other.write_all(b"x").is_err());
        assert!(other.set_len(0).is_err());
        assert!(HandoverFile::on_stdin().is_none());
    }

    #[test]
    fn a_reader_waits_until_the_file_is_sealed_or_dropped() {
        for is_sealed in [true, false] {
            let mut writer = HandoverWriter::create().unwrap();
            let reader = writer.reader().unwrap();
            let reading = std::thread::spawn(move || {
                let file = HandoverFile::of(reader.as_fd());
                file.map(|mut file| file.contents().unwrap())
            });
            writer.write_all(b"state").unwrap();
            let sealed = is_sealed.then(|| writer.seal().unwrap());
            let read = reading.join().unwrap();
            assert_eq!(read, sealed.map(|_| b"state".to_vec()));
        }
    }
}
