//! A container, without a container runtime: the first process of its own process namespace, in a root folder that it cannot write, as a
//! user without any capability.
//!
//! `/usr` of this machine stands for that of the base image. Needs root, util-linux and iproute2.

use crate::condition::{eventually, found};
use crate::image::Image;
use crate::netns::Netns;
use crate::process::{Process, Program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// The script that `sh` runs in the new namespaces. Its arguments: ROOT, pairs SOURCE TARGET up to `--`, and the command line of the
/// container.
const ENTER: &str = r#"
root=$1; shift
mount --bind "$root" "$root"
mount --bind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"#;

/// The folders of a base image that are part of `/usr`.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of the health checks in the Containerfiles.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
const RUN_TIMEOUT: Duration = Duration::from_secs(20);

/// A container that is not started yet.
#[derive(Clone, Debug)]
pub struct ContainerBuilder {
    image: Image,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    user: (u32, u32),
    hosts: String,
    mounts: Vec<(PathBuf, String)>,
}

impl ContainerBuilder {
    /// Gives the program these arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = String>) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// Sets an environment variable, in place of that of the image.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as this user and group instead of those of the image.
    #[must_use]
    pub fn user(mut self, user: u32, group: u32) -> Self {
        self.user = (user, group);
        self
    }

    /// Gives it this `/etc/hosts`.
    #[must_use]
    pub fn hosts(mut self, hosts: &str) -> Self {
        self.hosts = hosts.to_owned();
        self
    }

    /// Mounts a file or folder of this machine at `target`.
    #[must_use]
    pub fn mount(mut self, source: &Path, target: &str) -> Self {
        self.mounts.push((source.to_owned(), target.to_owned()));
        self
    }

    /// Starts it in this network namespace. Every failure message contains `name`.
    pub fn start(&self, netns: &Netns, name: &str) -> Container {
        let root = TempDir::new().expect("a temporary folder");
        let programs = TempDir::new().expect("a temporary folder");
        self.lay_out(root.path(), programs.path());
        let entry = &self.image.entrypoint[0];
        let mut program = Program::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
                "sh",
                "-ec",
                ENTER,
                "sh",
            ])
            .arg(root.path())
            .args([programs.path(), Path::new("/usr/local/bin")]);
        if let Some(binary) = &self.image.binary {
            program = program.arg(binary).arg(entry);
        }
        for (source, target) in &self.mounts {
            program = program.arg(source).arg(target);
        }
        let process = program
            .arg("--")
            .args(self.as_user())
            .args(&self.image.entrypoint)
            .args(&self.arguments)
            .inside(netns)
            .start(name);
        Container {
            process,
            description: self.clone(),
            root,
            _programs: programs,
        }
    }

    /// Makes the folders and files of the root, and the places of the mounts.
    fn lay_out(&self, root: &Path, programs: &Path) {
        let make = |folder: &Path| std::fs::create_dir_all(folder).expect("a folder of the root");
        let write = |file: &Path, text: &str| std::fs::write(file, text).expect("a file of the root");
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).expect("the mode of the root");
        std::fs::set_permissions(programs, PermissionsExt::from_mode(0o755)).expect("the mode of a folder");
        for folder in ["usr", "dev", "proc", "etc", "tmp"] {
            make(&root.join(folder));
        }
        for folder in MERGED {
            symlink(format!("usr/{folder}"), root.join(folder)).expect("a link of the root");
        }
        write(
            &root.join("etc/hosts"),
            &format!("127.0.0.1 localhost\n{}", self.hosts),
        );
        // No server listens there, so names are only those of the file above.
        write(&root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n");
        write(&root.join("etc/nsswitch.conf"), "hosts: files\n");
        if self.image.binary.is_some() {
            let entry = Path::new(&self.image.entrypoint[0]);
            write(&programs.join(entry.file_name().expect("a name")), "");
        }
        for (source, target) in &self.mounts {
            let place = root.join(target.trim_start_matches('/'));
            if source.is_dir() {
                make(&place);
            } else {
                make(place.parent().expect("a folder"));
                write(&place, "");
            }
        }
    }

    /// Returns the start of a command line whose rest runs as the user of the container, with its environment.
    fn as_user(&self) -> Vec<String> {
        let (user, group) = self.user;
        let start = ["/usr/bin/env", "-i"].map(str::to_owned);
        let variables = self.image.environment.iter().chain(&self.environment);
        let variables = variables.map(|(name, value)| format!("{name}={value}"));
        let user = [
            "/usr/bin/setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
            // The change of the user takes away the signal that `unshare --kill-child` has set.
            "--pdeathsig=KILL".to_owned(),
            "--no-new-privs".to_owned(),
            "--inh-caps=-all".to_owned(),
            "--bounding-set=-all".to_owned(),
            "--".to_owned(),
        ];
        let path = [format!("PATH={PATH}")];
        start
            .into_iter()
            .chain(path)
            .chain(variables)
            .chain(user)
            .collect()
    }
}

/// Makes an empty volume that this user and group can write.
pub fn volume(user: u32, group: u32) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    chown(folder.path(), Some(user), Some(group)).expect("the owner of a volume");
    folder
}

/// A running container.
#[derive(Debug)]
pub struct Container {
    process: Process,
    description: ContainerBuilder,
    root: TempDir,
    _programs: TempDir,
}

impl Container {
    /// Describes a container of this image.
    pub fn of(image: &Image) -> ContainerBuilder {
        ContainerBuilder {
            user: image.user,
            image: image.clone(),
            arguments: Vec::new(),
            environment: Vec::new(),
            hosts: String::new(),
            mounts: Vec::new(),
        }
    }

    /// Returns the parent of the container's first process. It has the output of the container, and ends with it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends a signal to its first process, as a container runtime does, unless it has ended.
    pub async fn signal(&mut self, signal: Signal) {
        let what = format!("{} has a process, or has ended", self.process.name());
        let first = found(what, START_TIMEOUT, async || {
            let first = self.first_process_now();
            (first.is_some() || !self.process.is_running()).then_some(first)
        });
        if let Some(first) = first.await {
            // It may have ended since then.
            let _ = kill(Pid::from_raw(first), signal);
        }
    }

    /// Runs another program in it, as its user, and waits for the end: a health check, or a hook.
    pub async fn run(&self, command: &[String]) -> ExitStatus {
        let first = self.first_process().await;
        let mut process = Program::new("nsenter")
            .arg(format!("--target={first}"))
            .args(["--mount", "--pid", "--net", "--root", "--wd", "--"])
            .args(self.description.as_user())
            .args(command)
            .start(format!("{command:?} in {}", self.process.name()));
        process.wait_for_end(RUN_TIMEOUT).await
    }

    /// Waits until the health check of the image succeeds.
    pub async fn wait_until_healthy(&self) {
        let what = format!("{} is healthy", self.process.name());
        eventually(what, HEALTHY_TIMEOUT, async || self.is_healthy().await).await;
    }

    /// Returns whether the health check of the image succeeds in time.
    pub async fn is_healthy(&self) -> bool {
        let checked = timeout(CHECK_TIMEOUT, self.run(&self.description.image.health_check));
        checked.await.is_ok_and(|ended| ended.success())
    }

    async fn first_process(&self) -> i32 {
        let what = format!("{} has a process", self.process.name());
        found(what, START_TIMEOUT, async || self.first_process_now()).await
    }

    /// Returns the id of the first process of the container. Returns `None` until that process has changed its root: before that it is
    /// still the script [`ENTER`].
    fn first_process_now(&self) -> Option<i32> {
        let pid = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let first: i32 = children.split_whitespace().next()?.parse().ok()?;
        let root = std::fs::read_link(format!("/proc/{first}/root")).ok()?;
        (root == self.root.path()).then_some(first)
    }
}
