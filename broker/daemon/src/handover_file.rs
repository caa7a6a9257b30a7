//! The file in memory (memfd) through which a program leaves its state to the program that replaces it. It is the standard input of the
//! next program, so it has a well-known number. It is sealed: nobody can change it after it was written, nor shorten it while it is read.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::stdio::dup2_stdin;
use tracing::warn;

/// First bytes of the file. Other programs may also give a sealed file to their children.
const MAGIC: &[u8] = b"standin handover\n";

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
        // Kernels before 6.3 do not know that the file is not executable. Later ones can be set to demand it.
        let created = memfd_create("standin-handover", flags | MemfdFlags::NOEXEC_SEAL);
        let created = created.or_else(|_| memfd_create("standin-handover", flags))?;
        let mut writer = BufWriter::new(File::from(created));
        writer.write_all(MAGIC)?;
        Ok(Self(writer))
    }

    /// Seals the file.
    ///
    /// # Errors
    /// The error of the system.
    pub fn seal(self) -> io::Result<HandoverFile> {
        let file = self.0.into_inner()?;
        fcntl_add_seals(&file, SEALS)?;
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
    /// Returns the file that is the standard input of this program, if the former program left its state there.
    #[must_use]
    pub fn on_stdin() -> Option<Self> {
        let stdin = io::stdin();
        let seals = fcntl_get_seals(&stdin).ok()?;
        let mut file = Self(stdin.as_fd().try_clone_to_owned().ok()?.into());
        let is_ours = seals.contains(SEALS) && file.rewind().is_ok();
        is_ours.then_some(file)
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

    /// Returns another descriptor of the file.
    ///
    /// # Errors
    /// The error of the system.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
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
        let mut other = File::from(file.descriptor().unwrap());
        assert!(other.write_all(b"x").is_err());
        assert!(other.set_len(0).is_err());
        assert!(HandoverFile::on_stdin().is_none());
    }
}
