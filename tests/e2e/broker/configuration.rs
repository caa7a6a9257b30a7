//! Start scripts and settings files of nats-server, used with `nats-server` and with `standin-broker`: both accept the same clients and
//! refuse the same mistakes.

use std::fs;

use e2e::process::Stream;
use e2e::{Conversation, Node, Program, ServerKind, TIMEOUT, eventually, peers};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A start of a server, and the client that it must accept.
struct Start {
    flags: &'static str,
    /// Text of `nats.conf`. If it is empty, no file is given.
    file: &'static str,
    /// User and password of a client that is accepted. `None` if the server accepts everyone.
    admitted: Option<(&'static str, &'static str)>,
}

/// A start with these flags, separated by spaces; `''` stands for an empty word. The server accepts the user `u` with the password `x`.
const fn flags(flags: &'static str) -> Start {
    Start {
        flags,
        file: "",
        admitted: Some(("u", "x")),
    }
}

const fn file(file: &'static str) -> Start {
    Start { file, ..flags("") }
}

impl Start {
    const fn admits(self, user: &'static str, password: &'static str) -> Self {
        Self {
            admitted: Some((user, password)),
            ..self
        }
    }

    const fn admits_everyone(self) -> Self {
        Self {
            admitted: None,
            ..self
        }
    }

    /// Returns the arguments of the program, with the settings file in this folder.
    fn arguments(&self, folder: &TempDir) -> Vec<String> {
        let mut arguments: Vec<String> = self
            .flags
            .split_whitespace()
            .map(|word| word.replace("''", ""))
            .collect();
        if !self.file.is_empty() {
            arguments.extend([
                "-c".to_owned(),
                folder.path().join("nats.conf").display().to_string(),
            ]);
        }
        arguments
    }
}

const ENVIRONMENT: &[(&str, &str)] = &[
    ("PLAIN", "x"),
    ("QUOTED", "'x'"),
    ("REFERRING", "$PLAIN"),
    ("BLOCK", "{ user: u, password: x }"),
    ("EMPTY", ""),
    ("SIZE", "64KB"),
];

const STARTS: &[Start] = &[
    flags("--user u --pass x"),
    flags("-user=u -pass=x"),
    flags("--user=u -pass x -D=false -T=false -logtime_utc=true -log_size_limit 1000"),
    flags("-user u -pass x -tls=false -js=false -s=0 -profile 0 -ms 0"),
    flags("-user u -pass x -DV -DV=false -VV=f -max_traced_msg_len 0x10"),
    flags("--user u").admits("u", ""),
    flags("--user '' --pass '' --auth ''").admits_everyone(),
    Start {
        file: "authorization { user: a, password: b }\n",
        ..flags("--user u --pass x")
    },
    file("authorization { user: u, password: $EMPTY }\n").admits("u", ""),
    file("authorization { users: [ { user: u } ] }\n").admits("u", ""),
    file("authorization { users: [] }\n").admits_everyone(),
    file("authorization {\n user: u\n password: (\nx\n)\n}\n").admits("u", "\nx\n"),
    file("authorization {\n user: u\n password: 0x10\n}\n").admits("u", "0x10"),
    file("authorization { user: u, password: 1.2.3.4 }\n").admits("u", "1.2.3.4"),
    file("authorization { user: u, password: a#b }\n").admits("u", "a#b"),
    file("authorization { user: u, password: \"$PLAIN\" }\n").admits("u", "$PLAIN"),
    file("authorization { user: u, password: '$2c$11$x' }\n").admits("u", "$2c$11$x"),
    file("authorization { user: u, password: \"\\x78\" }\n"),
    file("authorization { user: u, password: $PLAIN }\n"),
    file("authorization { user: u, password: $QUOTED }\n"),
    file("authorization { user: u, password: $REFERRING }\n"),
    file("authorization $BLOCK\nmax_payload: $SIZE\n"),
    file("P: x\nauthorization { user: u, password: $P }\n"),
    file("authorization { P: x, user: u, password: $P }\n"),
    file("P: x\nQ: $P\nR: $Q\nauthorization { P: $R, user: u, password: $P }\nserver_name: $Q\n"),
    file("include included.conf\n"),
    file("INCLUDE './included.conf'\nmax_payload: 64MB\n"),
    file("authorization {\n include block.conf\n}\nmax_pending: 3GB\n"),
    file("include variables.conf\nauthorization { user: u, password: $P }\n"),
    file("authorization { token: t }\ninclude included.conf\n"),
    file("authorization { user: u, password: y }\nauthorization { user: u, password: x }\n"),
    file("{\n\"authorization\": {\"user\": \"u\", \"password\": \"x\"}\n}\n"),
    file("authorization\n{user u;password\nx};\n"),
    file(
        "server_tags: [a, b]\nmax_closed_clients: 5\nno_sys_acc: true\nlogfile_size_limit: 5MB\nlogfile_max_num: 3\naccounts {}\n\
          jetstream { enabled: false }\ngateway {}\nleafnodes {}\nmqtt {}\nwebsocket {}\nauthorization { user: u, password: x }\n\
          cluster { host: 127.0.0.1, port: -1, name: c, compression: s2_auto, pool_size: 3, no_advertise: true }\n",
    ),
    file(
        "port: 0\nmax_payload: 63MB\nmax_pending: 0\nping_interval: \"1m30.5s\"\nwrite_deadline: \"1.5s\"\n\
          authorization { user: u, password: x, timeout: 1.5 }\n",
    ),
];

/// Returns whether the server accepts a client with these credentials.
async fn is_admitted(server: &Node, credentials: Option<(&str, &str)>) -> bool {
    let stream = TcpStream::connect(server.address()).await.expect("a connection");
    let mut client = Conversation::new("client", stream);
    client.read_frame().await;
    let mut connect = json!({ "verbose": false });
    if let Some((user, password)) = credentials {
        connect["user"] = user.into();
        connect["pass"] = password.into();
    }
    client.send(format!("CONNECT {connect}\r\nPING\r\n")).await;
    client.read_frame().await.verb() == "PONG"
}

fn folder(start: &Start) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("nats.conf", start.file),
        ("included.conf", "authorization { user: u, password: x }\n"),
        ("block.conf", "user: u\npassword: x\n"),
        ("variables.conf", "P: x\n"),
    ] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

async fn start_all(kind: ServerKind) {
    for start in STARTS {
        let folder = folder(start);
        let arguments = start.arguments(&folder);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = Node::start_in(kind, &arguments, ENVIRONMENT).await;
        let given = format!("{:?} {}", start.flags, start.file);
        assert!(is_admitted(&server, start.admitted).await, "{given}");
        let wrong = is_admitted(&server, Some(("u", "wrong"))).await;
        assert_eq!(wrong, start.admitted.is_none(), "{given}");
        let anonymous = is_admitted(&server, None).await;
        assert_eq!(anonymous, start.admitted.is_none(), "{given}");
    }
}

cases! {
    start_all =>
    with_old_start_scripts_standin_broker_accepts_the_expected_clients(ServerKind::Standin);
    with_old_start_scripts_nats_server_accepts_the_expected_clients(ServerKind::NatsServer);
}

/// Returns the settings in force with this file, without the comments, which name the places.
async fn printed(file: &str) -> String {
    let mut program = Program::new(peers::broker_binary()).args(["-c", file, "--print-config"]);
    for (name, value) in ENVIRONMENT {
        program = program.env(name, value);
    }
    let mut process = program.start("the settings");
    let code = process.wait_for_end(TIMEOUT).await.code();
    assert_eq!(code, Some(0), "{}", process.tail());
    let lines = process.lines();
    let printed = lines.iter().filter(|line| line.stream == Stream::Out);
    let values = printed.map(|line| line.text.split("  # ").next().unwrap_or_default().to_owned() + "\n");
    values.collect()
}

#[tokio::test]
async fn an_imported_file_sets_the_same_as_the_file_of_nats_server() {
    for start in STARTS.iter().filter(|start| !start.file.is_empty()) {
        let folder = folder(start);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut program = Program::new(peers::broker_binary()).args(["import", &path("nats.conf")]);
        for (name, value) in ENVIRONMENT {
            program = program.env(name, value);
        }
        let mut process = program.start("the import");
        let code = process.wait_for_end(TIMEOUT).await.code();
        let mut toml = String::new();
        let mut left_out = 0;
        for line in process.lines().iter() {
            match line.stream {
                Stream::Out => toml += &(line.text.clone() + "\n"),
                Stream::Err => left_out += 1,
            }
        }
        let expected = if left_out > 0 { 65 } else { 0 };
        assert_eq!(code, Some(expected), "{}: {}", start.file, process.tail());
        assert_eq!(toml.matches("# not carried over").count(), left_out, "{toml}");
        fs::write(path("broker.toml"), &toml).expect("a file");
        let given = printed(&path("nats.conf")).await;
        assert_eq!(
            printed(&path("broker.toml")).await,
            given,
            "{}\n{toml}",
            start.file
        );
    }
}

/// Runs a program to its end, and returns its exit code and its last lines.
async fn refused(program: Program) -> (Option<i32>, String) {
    let mut process = program.start("a server");
    let status = process.wait_for_end(TIMEOUT).await;
    (status.code(), process.tail())
}

#[tokio::test]
async fn standin_broker_refuses_the_flags_and_settings_that_nats_server_refuses() {
    let wrong_flags = [
        "-VD",
        "-DVVV",
        "-p",
        "-p 08",
        "-p x",
        "-D=perhaps",
        "---p 1",
        "stray",
        "-no_advertise false",
        "-logtimeutc=true",
        "-sl kill=1",
        "-sl stop=x",
        "-sl stop=1=2",
        "-sl reload=2147483647",
        "-tls",
        "-tlsverify",
    ];
    let wrong_files = [
        "port: 1\nnever: 1\n",
        "P: 1\n",
        "authorization { user: u, password: $P }\nP: 1\n",
        "p: x\nauthorization { user: u, password: $P }\n",
        "authorization { user: u, password: \"\\q\" }\n",
        "authorization { user: u, password: \"\\x4g\" }\n",
        "authorization { user: u, password: -abc }\n",
        "authorization { user: u, password: 5-3 }\n",
        "authorization{ user: u, password: x }\n",
        "authorization { user: u, password: x\n",
        "authorization { users: [ {user: u}{user: v} ] }\n",
        "authorization { users: [ {password: x} ] }\n",
        "authorization { users: [ {user: a, password: b}, {user: a, password: c} ] }\n",
        "authorization { user: u, token: t }\n",
        "include no.conf\n",
        "port:\n 1\n",
        "max_payload: \"1MB\"\n",
        "max_payload: 3GB\n",
        "max_payload: 1MB\nmax_pending: 500KB\n",
        "cluster { port: -1, gossip: 1 }\n",
        "cluster { port: -1, routes: x }\n",
        "cluster { port: -1, authorization { token: t } }\n",
        "debug: 1\n",
        "ping_interval: \"1d\"\n",
        "client_advertise: \"x:y\"\n",
        "cluster { port: -1, advertise: \"x:y\" }\n",
    ];
    for start in wrong_flags.map(flags).into_iter().chain(wrong_files.map(file)) {
        let folder = folder(&start);
        for kind in [ServerKind::Standin, ServerKind::NatsServer] {
            let own = kind.program().args(["-a", "127.0.0.1", "-p", "-1"]);
            let program = own.args(start.arguments(&folder));
            let (code, output) = refused(program).await;
            // For a wrong flag nats-server prints its help and exits with 0. It finds some errors only when it is ready.
            let is_refused = match kind {
                ServerKind::Standin => matches!(code, Some(64 | 69)),
                ServerKind::NatsServer | ServerKind::OldNatsServer => {
                    code != Some(0) || !output.contains("Server is ready")
                }
            };
            assert!(is_refused, "{} {}: {code:?} {output}", start.flags, start.file);
        }
    }
}

#[tokio::test]
async fn a_cut_bcrypt_hash_in_an_environment_variable_is_refused_with_the_name_of_the_setting() {
    let folder = folder(&file("authorization { user: u, password: $HASH }\n"));
    let whole = "$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let quoted = format!("'{}'", &whole[..40]);
    for (hash, is_whole) in [(whole, true), (&whole[..59], false), (quoted.as_str(), false)] {
        let program = Program::new(peers::broker_binary())
            .args(["-t", "-c"])
            .arg(folder.path().join("nats.conf"))
            .env("HASH", hash);
        if is_whole {
            let mut process = program.start("the check");
            assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(0));
            continue;
        }
        let (code, output) = refused(program).await;
        assert_eq!(code, Some(64), "{output}");
        assert!(
            output.contains("nats.conf:1: authorization.password begins like a bcrypt hash")
                && !output.contains("abcdef"),
            "{output}"
        );
    }
}

async fn signal(command: String) -> Option<i32> {
    let program = Program::new(peers::broker_binary()).args(["-sl", &command]);
    let mut process = program.start("the signal");
    process.wait_for_end(TIMEOUT).await.code()
}

#[tokio::test]
async fn a_running_server_gets_a_signal_by_its_pid_or_its_pid_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = ServerKind::Standin
        .program()
        .args(["-a", "127.0.0.1", "-p", "-1"]);
    let mut server = program
        .args(["-P", &path("pid"), "-l", &path("log")])
        .start("standin-broker");
    let text = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    eventually("it serves", TIMEOUT, async || {
        text("log").contains("Server is ready")
    })
    .await;
    let pid = server.pid();
    assert_eq!(signal(format!("reload={pid}")).await, Some(0));
    eventually("it is reloaded", TIMEOUT, async || {
        text("log").contains("Reloaded server configuration")
    })
    .await;
    fs::rename(path("log"), path("log.1")).expect("moved");
    assert_eq!(signal(format!("reopen={}", path("pid"))).await, Some(0));
    eventually("it has opened a new log file", TIMEOUT, async || {
        !text("log").is_empty()
    })
    .await;
    assert_eq!(signal(format!("ldm={pid}*")).await, Some(0));
    eventually("it is a lame duck", TIMEOUT, async || {
        text("log").contains("Entering lame duck mode")
    })
    .await;
    assert_eq!(server.wait_for_end(TIMEOUT).await.code(), Some(0));
    assert_eq!(signal(format!("stop={pid}")).await, Some(69), "no such process");
    for command in ["term", "quit"] {
        let mut other = Node::start(ServerKind::Standin, &["-P", &path("pid")]).await;
        assert_eq!(signal(format!("{command}={}", path("pid"))).await, Some(0));
        assert_eq!(other.process().wait_for_end(TIMEOUT).await.code(), Some(0));
    }
    let mut other = Node::start(ServerKind::Standin, &[]).await;
    let pid = other.process().pid();
    assert_eq!(signal(format!("stop={pid}")).await, Some(0));
    let ended = other.process().wait_for_end(TIMEOUT).await;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(Signal::SIGKILL as i32)
    );
}
