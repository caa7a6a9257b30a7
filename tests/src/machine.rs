//! A machine of an operator, on which the commands of a guide run as they stand in the document.
//!
//! It is a [`Netns`] with a file system and processes of its own: `/etc` is a copy, and `/run` and `/var/lib` are empty, so nothing of the real
//! machine changes. What differs from a real machine is only this:
//!
//! - `standin-proxy` and `standin-broker` are the programs under test, in `PATH`;
//! - `systemctl` and `journalctl` are `systemctl.sh` beside this file, because no systemd runs;
//! - `/etc/hosts` has the names that the test gives, such as zk1, and there are the users standin-proxy and standin-broker;
//! - the current folder is the top of the source tree.
//!
//! All its processes end when it is dropped. Needs root, util-linux and iproute2.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::Netns;
use crate::peers;
use crate::process::{Process, Program};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on the time of one block of commands, in seconds.
const BLOCK_SECS_MAX: &str = "60";

/// First process of the machine. Its arguments: the two programs, `systemctl.sh`, and the lines for `/etc/hosts`.
const INIT: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/etc /run/bin /run/haproxy
cp -a /etc/. /run/etc/
mount --bind /run/etc /etc
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p /var/lib/haproxy
rm -rf /etc/standin /etc/systemd/system/standin-*
for program in "$1" "$2"; do
  touch "/run/bin/$(basename "$program")"
  mount --bind "$program" "/run/bin/$(basename "$program")"
done
install -m 755 "$3" /run/bin/systemctl
install -m 755 "$3" /run/bin/journalctl
printf '127.0.0.1 localhost\n%s\n' "$4" >/etc/hosts
number=64000
for user in standin-proxy standin-broker; do
  number=$((number + 1))
  if ! grep -q "^$user:" /etc/passwd; then
    echo "$user:x:$number:$number::/:/usr/sbin/nologin" >>/etc/passwd
    echo "$user:x:$number:" >>/etc/group
  fi
done
echo ready
# Bash reaps the processes whose parents have ended.
while read -r _; do :; done
"#;

/// A machine. Dropping it ends all its processes.
#[derive(Debug)]
pub struct Machine {
    netns: String,
    init: Process,
}

impl Machine {
    /// Starts a machine in this network namespace. `hosts` are lines for `/etc/hosts`.
    pub async fn start(netns: &Netns, hosts: &str) -> Self {
        let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/systemctl.sh");
        let mut init = Program::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "-c", INIT, "init"])
            .args([peers::sidecar_binary(), peers::broker_binary(), stub])
            .arg(hosts)
            .inside(netns)
            .start(format!("machine {}", netns.name()));
        init.wait_for_line("ready", START_TIMEOUT).await;
        Self {
            netns: netns.name().to_owned(),
            init,
        }
    }

    /// Runs the commands of a block, and returns what they print. Fails the test if one of them fails.
    #[track_caller]
    pub fn run(&self, block: &str) -> String {
        let script = format!("cd {}\n{block}", top().display());
        let pid = self.init.pid();
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg(format!("--pid=/proc/{pid}/ns/pid_for_children"))
            .args([
                "--",
                "timeout",
                BLOCK_SECS_MAX,
                "bash",
                "-euo",
                "pipefail",
                "-c",
                &script,
            ])
            .env(
                "PATH",
                "/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("GUIDE_UNITS", top().join("deploy"))
            .env_remove("NATS_URL")
            .output()
            .unwrap_or_else(|error| panic!("cannot run nsenter: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "on {}, this failed ({}):\n{block}\n--- output:\n{printed}\n--- errors:\n{errors}",
            self.netns,
            output.status
        );
        printed
    }

    /// Returns the program with the network and the files of this machine.
    pub(crate) fn program(&self, program: Program) -> Program {
        program
            .inside_named(Some(&self.netns))
            .inside_mounts(format!("--mount=/proc/{}/ns/mnt", self.init.pid()))
    }
}

/// Returns the top of the source tree.
pub fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
