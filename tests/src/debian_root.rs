//! A Debian system in which a test installs packages: the files of this machine. Nobody else sees the changes to them, and they are gone
//! after the test. It has its own `/run` and `/tmp`, the package database of this machine, and no running systemd.
//!
//! It is an overlay of `/` in a mount namespace of its own, so it is there at once and needs no downloads. It needs root.

use crate::process::{Process, Program};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Mounts the system at `$1/system` and keeps the namespace alive. The changes are in a tmpfs, because an overlay cannot keep its changes in
/// another overlay, and the root of a container is one. apt and man-db are faster without their lists of packages and pages, and the test has no
/// network.
const HOLD: &str = "
set -e
mount -t tmpfs changes $1
mkdir $1/system $1/upper $1/work
mount -t overlay standin -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $1/system
mount -t tmpfs run $1/system/run
mount -t tmpfs tmp $1/system/tmp
mount -t tmpfs lists $1/system/var/lib/apt/lists
rm -f $1/system/var/lib/man-db/auto-update
mount -t proc proc $1/system/proc
mount --rbind /dev $1/system/dev
echo mounted
exec sleep infinity";

/// A Debian system. Dropping it removes it.
#[derive(Debug)]
pub struct DebianRoot {
    holder: Process,
    folder: TempDir,
}

impl DebianRoot {
    /// Makes the system.
    pub async fn new() -> Self {
        let folder = TempDir::new().unwrap_or_else(|error| panic!("cannot make a folder: {error}"));
        let mut holder = Program::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "--",
                "bash",
                "-c",
                HOLD,
                "bash",
            ])
            .arg(folder.path())
            .start("the Debian system");
        holder.wait_for_line("mounted", START_TIMEOUT).await;
        Self { holder, folder }
    }

    /// Copies a file into the folder in which [`run`](Self::run) starts.
    pub fn put(&self, file: &Path) {
        let name = file.file_name().unwrap_or_default();
        // The mounts are not visible from here, but through the process that holds them.
        let folder = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        let root = self.folder.path().join("system/srv").join(name);
        let target = folder.join(root.strip_prefix("/").unwrap_or(&root));
        std::fs::copy(file, &target).unwrap_or_else(|error| panic!("cannot copy to {target:?}: {error}"));
    }

    /// Runs commands of bash as root, in `/srv`. The first that fails ends them.
    pub fn try_run(&self, commands: &str) -> Output {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.pid()))
            .args(["--", "chroot"])
            .arg(self.folder.path().join("system"))
            .args(["bash", "-euo", "pipefail", "-c", &format!("cd /srv; {commands}")])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("HOME", "/root")
            // systemctl enables units, and starts none.
            .env("SYSTEMD_OFFLINE", "1");
        let output = command.output();
        output.unwrap_or_else(|error| panic!("cannot run nsenter (package util-linux): {error}"))
    }

    /// Runs commands as [`try_run`](Self::try_run) does, and returns what they wrote to both streams. Panics if they fail.
    #[track_caller]
    pub fn run(&self, commands: &str) -> String {
        let output = self.try_run(commands);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(
            output.status.success(),
            "{commands}\nfailed with {}:\n{said}",
            output.status
        );
        said
    }
}
