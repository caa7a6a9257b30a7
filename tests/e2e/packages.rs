//! The Debian packages: installed, upgraded, removed and purged by the commands of `deploy/install.md`.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{DebianRoot, Guide, peers};
use tempfile::TempDir;

/// Builds both packages from the programs under test, with this Debian revision.
fn packages(revision: u32, built: &Path) -> Vec<PathBuf> {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/package");
    let mut command = Command::new(tool);
    command
        .arg("--from")
        .arg(built)
        .arg("--to")
        .arg(built.join("debian"));
    command.args(["--quick", "--revision", &revision.to_string()]);
    let output = command.output().expect("deploy/package runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().map(PathBuf::from).collect()
}

/// Returns a folder with the programs under test and their manual.
fn built() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for program in [peers::sidecar_binary(), peers::broker_binary()] {
        let name = program.file_name().expect("a name");
        // Without its debug information it is copied faster.
        let strip = Command::new("strip")
            .arg(&program)
            .arg("-o")
            .arg(folder.path().join(name))
            .status();
        assert!(strip.expect("strip runs").success());
    }
    standin_manual::write(&folder.path().join("manual")).expect("the manual");
    folder
}

/// Runs all commands below a heading of the guide.
fn follow(root: &DebianRoot, guide: &mut Guide, heading: &str) {
    for block in guide.rest(heading) {
        root.run(&block);
    }
}

/// Fails if the units, the man pages or the completions have a fault.
fn check_what_is_installed(root: &DebianRoot) {
    let units = "/usr/lib/systemd/system/standin-*.{service,socket}";
    assert_eq!(root.run(&format!("systemd-analyze verify {units}")), "");
    // The scale is 0 (safe) to 100.
    root.run(
        "systemd-analyze security --offline=yes --threshold=20 /usr/lib/systemd/system/standin-*.service",
    );
    let pages = root.run("for page in /usr/share/man/man8/standin-*.8.gz; do man --warnings -E UTF-8 -l -Tutf8 $page | col -b; done");
    for text in [
        "standin-proxy(8)",
        "standin-broker(8)",
        "--upstream",
        "/etc/standin/broker.toml",
    ] {
        assert!(pages.contains(text), "{text}: {pages}");
    }
    assert!(!pages.contains("warning:"), "{pages}");
    // Each file begins a line.
    assert!(
        pages.contains("settings of the service\n       /usr/share/doc/"),
        "{pages}"
    );
    let bash = "
        . /usr/share/bash-completion/completions/standin-proxy
        COMP_WORDS=(standin-proxy --up) COMP_CWORD=1
        function=$(complete -p standin-proxy | sed 's|.*-F ||; s| .*||')
        set +eu; $function standin-proxy --up standin-proxy; echo ${COMPREPLY[@]}";
    assert_eq!(root.run(bash).trim(), "--upstream");
    let zsh = "zsh -fc 'fpath+=(/usr/share/zsh/vendor-completions); autoload -U compinit; compinit -D; echo $_comps[standin-broker]'";
    assert_eq!(root.run(zsh).trim(), "_standin-broker");
    let fish = root.run("fish -c 'complete -C \"standin-broker --zookeeper-p\"'");
    assert!(fish.starts_with("--zookeeper-path"), "{fish}");
}

/// Fails if a folder or a settings file has a wrong owner or mode, or if the user of a program cannot read its settings.
fn check_owners(root: &DebianRoot) {
    let owners = root.run("stat -c '%n %U:%G %a' /etc/standin/*.toml /var/lib/standin /var/log/standin");
    let expected = [
        "/etc/standin/broker.toml root:standin-broker 640",
        "/etc/standin/proxy.toml root:standin-proxy 640",
        "/var/lib/standin standin-proxy:standin-proxy 750",
        "/var/log/standin standin-broker:standin-broker 750",
    ];
    assert_eq!(owners.lines().collect::<Vec<_>>(), expected);
    for name in ["proxy", "broker"] {
        // As the unit does it.
        let check = format!("standin-{name} --config /etc/standin/{name}.toml --check");
        let said = root.run(&format!(
            "setpriv --reuid standin-{name} --regid standin-{name} --clear-groups {check}"
        ));
        assert!(said.contains("settings are valid"), "{said}");
    }
}

#[tokio::test]
async fn packages_are_installed_upgraded_and_removed_as_the_guide_says() {
    let (built, root) = (built(), DebianRoot::new().await);
    let mut guide = Guide::read("install.md");
    packages(1, built.path())
        .iter()
        .for_each(|package| root.put(package));
    follow(&root, &mut guide, "Install the sidecar");
    follow(&root, &mut guide, "Install a node");
    check_owners(&root);
    check_what_is_installed(&root);
    root.run("echo lines >/var/log/standin/broker.log && chown standin-broker: /var/log/standin/broker.log");
    root.run("logrotate --force --state /tmp/state /etc/logrotate.d/standin-broker && test -e /var/log/standin/broker.log.1");

    root.run("systemctl enable standin-announce");

    root.run("rm *.deb");
    packages(2, built.path())
        .iter()
        .for_each(|package| root.put(package));
    follow(&root, &mut guide, "Upgrade");
    let versions = root.run("dpkg-query -W -f '${Version} ' standin-proxy standin-broker");
    assert!(
        versions.split_whitespace().all(|version| version.ends_with("-2")),
        "{versions}"
    );
    check_owners(&root);
    root.run("grep -q '^upstream = ' /etc/standin/proxy.toml && test -L /etc/systemd/system/sockets.target.wants/standin-proxy.socket");

    root.run(&guide.next("Remove"));
    assert_eq!(
        root.run("ls /etc/standin; ! command -v standin-proxy"),
        "broker.toml\nproxy.toml\n"
    );
    // A process of the user, such as one in a shell of the operator, does not make the purge fail. Only the user stays.
    let process = "setpriv --reuid standin-broker --clear-groups sleep 60 >/dev/null 2>&1 &";
    let purge = guide.next("Remove");
    let said = root.run(&format!(
        "{process}
        process=$!
        timeout 20 bash -c 'until pgrep -u standin-broker >/dev/null; do sleep 0.1; done'
        {purge}
        kill $process
        wait $process || true
        userdel standin-broker"
    ));
    assert!(said.contains("the user stays"), "{said}");
    let left = "
        find /etc /usr/bin /usr/lib/systemd /usr/share/{bash-completion,doc,fish,lintian,man,zsh} /var/lib /var/log -xdev -name '*standin*'
        getent passwd standin-proxy standin-broker || true";
    assert_eq!(root.run(left), "");
}
