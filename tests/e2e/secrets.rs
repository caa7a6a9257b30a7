//! No secret appears in what the programs emit: their logs at the finest level, errors, pages, `--check` and `--print-config`. All
//! secrets in this file begin with [`MARK`], so that one search finds any of them.

use e2e::http::Endpoint;
use e2e::{Authority, Node, Process, Program, RawClient, ServerKind, Sidecar, TIMEOUT, peers};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// Begin of each secret.
const MARK: &str = "s3cret";

/// Asserts that a program's output has no secret. `what` says which output it is.
#[track_caller]
fn assert_clean(what: &str, text: &str) {
    assert!(!text.is_empty(), "{what} is empty");
    let leak = text.lines().find(|line| line.contains(MARK));
    assert!(leak.is_none(), "{what} has a secret: {leak:?}");
}

#[track_caller]
fn assert_clean_log(process: &Process) {
    let lines: Vec<String> = process.lines().iter().map(|line| line.text.clone()).collect();
    assert_clean("the log", &lines.join("\n"));
}

async fn assert_clean_pages(http: &Endpoint, pages: &[&str]) {
    for page in pages {
        let (status, body) = http.get(page).await.expect("an answer");
        assert_eq!(status, 200, "{page}");
        assert_clean(page, &body);
    }
}

/// Runs `program` with `--check` and with `--print-config`. Returns whether its settings are valid.
async fn checks_cleanly(program: &Program) -> bool {
    let mut is_valid = false;
    for flag in ["--check", "--print-config"] {
        let mut process = program.clone().arg(flag).start(flag);
        is_valid = process.wait_for_end(TIMEOUT).await.success();
        assert_clean_log(&process);
    }
    is_valid
}

/// Sends CONNECT with these fields, and returns the verb of the answer to a PING after it.
async fn answer_to(client: &mut RawClient, fields: &str) -> String {
    client
        .send(format!("CONNECT {{\"verbose\":false,{fields}}}\r\nPING\r\n"))
        .await;
    client.read_frame().await.verb().to_owned()
}

const BROKER: &str = r#"
[authorization]
user = "a"
password = "s3cret-password"
users = [{ user = "b", password = "s3cret-second" }]
[nodes]
zookeeper = "127.0.0.1:1"
zookeeper_auth = "zk:s3cret-zookeeper"
[cluster]
listen = "127.0.0.1:-1"
sync_timeout_ms = 100
user = "c"
password = "s3cret-cluster"
routes = ["nats://d:s3cret-route@OTHER"]
"#;

/// Changes of [`BROKER`] that are mistakes.
const MISTAKES: [(&str, &str); 6] = [
    ("\"s3cret-password\"", "[\"s3cret-password\"]"),
    ("\"s3cret-password\"", "\"s3cret-password"),
    (
        "\"s3cret-password\"",
        "\"s3cret-password\"\ntoken = \"s3cret-token\"",
    ),
    ("password = \"s3cret-second\"", "passwort = \"s3cret-second\""),
    ("zk:s3cret-zookeeper", "s3cret-zookeeper"),
    ("nats://d:s3cret-route", "http://d:s3cret-route"),
];

#[tokio::test]
async fn a_broker_emits_no_secret() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("broker.toml");
    let write = |text: &str| {
        fs::write(&file, text).expect("the settings are written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the mode is set");
    };
    let other = Node::start(
        ServerKind::Standin,
        &[
            "--cluster",
            "nats://c:s3cret-other@127.0.0.1:-1",
            "--ports_file_dir",
            path(folder.path()),
        ],
    )
    .await;
    let ports = fs::read_dir(folder.path())
        .expect("the folder")
        .flatten()
        .next()
        .expect("a file");
    let ports: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(ports.path()).expect("ports")).expect("JSON");
    let route = ports["cluster"][0]
        .as_str()
        .expect("the port for nodes")
        .trim_start_matches("nats://");
    let settings = BROKER.replace("OTHER", route);
    write(&settings);
    let program = Program::new(peers::broker_binary()).arg("-c").arg(&file);
    assert!(checks_cleanly(&program).await, "the settings are valid");

    let mut node = Node::start(ServerKind::Standin, &["-c", path(&file), "-V"]).await;
    for (fields, verb) in [
        ("\"user\":\"a\",\"pass\":\"s3cret-wrong\"", "-ERR"),
        ("\"auth_token\":\"s3cret-wrong\"", "-ERR"),
        ("\"user\":\"a\",\"pass\":s3cret-no-json", "-ERR"),
        ("\"user\":\"a\",\"pass\":\"s3cret-password\"", "PONG"),
    ] {
        let mut client = RawClient::connect(node.address()).await;
        assert_eq!(answer_to(&mut client, fields).await, verb, "{fields}");
    }
    node.logs("refused").await;
    let pages = [
        "/",
        "/varz",
        "/connz?auth=1&subs=detail&state=all",
        "/routez?subs=1",
        "/subsz?subs=1",
        "/metrics",
    ];
    assert_clean_pages(node.http(), &pages).await;
    for (from, to) in MISTAKES {
        let wrong = settings.replace(from, to);
        assert_ne!(wrong, settings);
        write(&wrong);
        assert!(!checks_cleanly(&program).await, "{to}");
        let mark = node.process().mark();
        node.process().signal(Signal::SIGHUP);
        node.logs_after(mark, "settings were not reloaded").await;
    }
    write(&settings.replace("s3cret-password", "s3cret-changed"));
    node.process().signal(Signal::SIGHUP);
    node.logs("Reloaded server configuration").await;
    node.stop(TIMEOUT).await;
    assert_clean_log(node.process());
    let mut other = other;
    assert_clean_log(other.process());
}

/// Secrets of flags, of the environment, and of a file in the format of `nats-server`.
#[tokio::test]
async fn a_broker_emits_no_secret_of_its_flags_its_environment_and_its_conf() {
    let folder = TempDir::new().expect("a folder");
    let conf = folder.path().join("nats.conf");
    let program = Program::new(peers::broker_binary());
    for (flags, text, is_valid) in [
        ("--user u --pass s3cret-flag", "", true),
        ("--auth s3cret-token", "", true),
        (
            "--cluster nats://u:s3cret-flag@127.0.0.1:-1 --routes nats://u:s3cret-flag@127.0.0.1:1",
            "",
            true,
        ),
        ("--routes http://u:s3cret-flag@127.0.0.1:1", "", false),
        ("--pass s3cret-flag", "", false),
        ("", "authorization { user: u, password: $VARIABLE }\n", true),
        ("", "authorization { user: u, pasword: s3cret-conf }\n", false),
        (
            "",
            "authorization { users: [ {user: u, password: s3cret-conf}, {user: u, password: s3cret-more} ] }\n",
            false,
        ),
        ("", "authorization { user: u, password: 's3cret-conf }\n", false),
        (
            "",
            "cluster { port: -1, authorization { user: u, password: s3cret-conf, more: s3cret-more } }\n",
            false,
        ),
    ] {
        fs::write(&conf, text).expect("the file is written");
        let program = program
            .clone()
            .args(flags.split_whitespace())
            .arg("-c")
            .arg(&conf);
        let program = program.env("VARIABLE", "s3cret-variable");
        assert_eq!(checks_cleanly(&program).await, is_valid, "{flags} {text}");
    }
    let program = program
        .env("STANDIN_AUTHORIZATION_USER", "u")
        .env("STANDIN_AUTHORIZATION_PASSWORD", "s3cret-variable");
    assert!(checks_cleanly(&program).await);
}

#[tokio::test]
async fn a_sidecar_emits_no_secret() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("sidecar", &["127.0.0.1"]);
    let node = Node::start(ServerKind::Standin, &["--user", "a", "--pass", "s3cret-password"]).await;
    let mut sidecar = Sidecar::builder()
        .upstream([node.url().replace("nats://", "nats://x:s3cret-upstream@")])
        .setting("nodes.zookeeper", "127.0.0.1:1")
        .setting("nodes.zookeeper_auth", "zk:s3cret-zookeeper")
        .setting("credentials.user", "a")
        .setting("credentials.password", "s3cret-password")
        .setting("tls.component.mode", "optional")
        .setting("tls.component.cert_file", cert)
        .setting("tls.component.key_file", key)
        .setting("log.level", "trace")
        .cached()
        .start()
        .await;
    let mut served = RawClient::connect(sidecar.address()).await;
    assert_eq!(answer_to(&mut served, "\"name\":\"c\"").await, "PONG");
    for fields in [
        "\"user\":\"a\",\"pass\":\"s3cret-wrong\"",
        "\"auth_token\":\"s3cret-wrong\"",
    ] {
        let mut client = RawClient::connect(sidecar.address()).await;
        assert_eq!(answer_to(&mut client, fields).await, "-ERR", "{fields}");
    }
    assert_clean_pages(
        &sidecar.http(),
        &[
            "/",
            "/readyz",
            "/healthz",
            "/varz",
            "/sessionz",
            "/nodez",
            "/movez",
            "/metrics",
        ],
    )
    .await;
    let file = sidecar.folder().join("proxy.toml");
    let program = Program::new(peers::sidecar_binary()).arg("--config").arg(&file);
    assert!(checks_cleanly(&program).await, "the settings are valid");
    for (key, wrong, right) in [
        ("nodes.zookeeper_auth", "s3cret-zookeeper", "zk:s3cret-changed"),
        ("credentials.token", "s3cret-token", ""),
        ("credentials.password", "***", "s3cret-changed"),
    ] {
        let mark = sidecar.process().mark();
        sidecar.reload_with(key, wrong);
        let line = sidecar
            .process()
            .wait_for_line_after(mark, "settings were not reloaded", TIMEOUT);
        line.await;
        assert!(!checks_cleanly(&program).await, "{key}");
        let mark = sidecar.process().mark();
        sidecar.reload_with(key, right);
        let line = sidecar
            .process()
            .wait_for_line_after(mark, "settings reloaded", TIMEOUT);
        line.await;
    }
    sidecar.process().signal(Signal::SIGTERM);
    sidecar.process().wait_for_end(TIMEOUT).await;
    assert_clean_log(sidecar.process());
    assert_clean(
        "the cache",
        &fs::read_to_string(sidecar.cache_file()).expect("the cache"),
    );
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
