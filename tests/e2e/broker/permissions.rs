//! What users may do: the same table of conversations on our broker and on `nats-server`.

use std::path::Path;

use e2e::{Mesh, Node, RawClient, ServerKind, TIMEOUT, eventually};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::accounts::client_of;
use super::conformance::check_rows_at;
use super::rows::{Row, row, unauthorized};

/// The users of the rows. The hash is that of `secret`, with cost 4.
const USERS: &str = r#"
authorization {
  default_permissions = { publish: "sandbox.*", subscribe: ["public.>", "_INBOX.>"] }
  users = [
    { user: default, password: p }
    { user: free, password: p, permissions: { publish: ">", subscribe: ">" } }
    { user: deny, password: p, permissions: { publish: { deny: ["a.x", "b.>"] }, subscribe: { deny: ["a.x", "b.>"] } } }
    { user: allow, password: p, permissions: { pub: { allow: ["a.*", "c"], deny: "a.x" }, sub: { allow: "a.>", deny: ["a.y"] } } }
    { user: queues, password: p, permissions: { publish: ">", subscribe: { allow: ["q", "q v1", "q v1.>", "r *.dev"], deny: ["> *.prod"] } } }
    { user: answers, password: p, permissions: { subscribe: ["ask", "r.>"], allow_responses: true } }
    { user: mixed, password: p, permissions: { publish: { deny: "r.>" }, allow_responses: true } }
    { user: two, password: p, permissions: { publish: "ask", subscribe: ["ask", "r.>"], allow_responses: { max: 2, expires: "1m" } } }
    { user: none, password: p, permissions: { publish: { deny: ">" }, subscribe: { deny: ">" } } }
    { user: hashed, password: "$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW" }
  ]
}
no_auth_user: default
"#;

/// A conversation that begins with the CONNECT of `$user`.
macro_rules! as_user {
    ($user:literal, $name:literal, $sends:literal, $receives:literal) => {
        row(
            concat!($user, ": ", $name),
            concat!(
                "CONNECT {\"verbose\":false,\"user\":\"",
                $user,
                "\",\"pass\":\"p\"}\r\n",
                $sends
            ),
            $receives,
        )
    };
}

const ROWS: &[Row] = &[
    as_user!(
        "default",
        "may publish what the default allows",
        "PUB sandbox.a 1\r\nx\r\n",
        ""
    ),
    as_user!(
        "default",
        "may not publish more",
        "PUB sandbox.a.b 1\r\nx\r\nPUB other 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Publish to \"sandbox.a.b\"'\r\n-ERR 'Permissions Violation for Publish to \"other\"'\r\n"
    ),
    as_user!(
        "default",
        "may not subscribe to more",
        "SUB public.> 1\r\nSUB > 2\r\nSUB sandbox.* 3\r\n",
        "-ERR 'Permissions Violation for Subscription to \">\"'\r\n-ERR 'Permissions Violation for Subscription to \"sandbox.*\"'\r\n"
    ),
    row(
        "no CONNECT: the no_auth_user",
        "PUB sandbox.a 1\r\nx\r\nPUB other 1\r\nx\r\n",
        "+OK\r\n-ERR 'Permissions Violation for Publish to \"other\"'\r\n",
    ),
    row(
        "no credentials: the no_auth_user",
        "CONNECT {\"verbose\":false}\r\nPUB sandbox.a 1\r\nx\r\nPUB other 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Publish to \"other\"'\r\n",
    ),
    row(
        "an ok only for what is allowed",
        "CONNECT {\"verbose\":true,\"pedantic\":false,\"user\":\"default\",\"pass\":\"p\"}\r\nPUB other 1\r\nx\r\nPUB sandbox.a 1\r\nx\r\nSUB other 1\r\nSUB public.a 2\r\n",
        "+OK\r\n-ERR 'Permissions Violation for Publish to \"other\"'\r\n+OK\r\n-ERR 'Permissions Violation for Subscription to \"other\"'\r\n+OK\r\n",
    ),
    as_user!(
        "free",
        "may do everything",
        "SUB > 1\r\nPUB a.b 1\r\nx\r\n",
        "MSG a.b 1 1\r\nx\r\n"
    ),
    as_user!(
        "deny",
        "what is denied is not delivered to a wildcard",
        "SUB a.* 1\r\nSUB a.x 2\r\nSUB b.c 3\r\nPUB a.y 1\r\nx\r\nPUB a.x 1\r\nx\r\nPUB b.c.d 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Subscription to \"a.x\"'\r\n-ERR 'Permissions Violation for Subscription to \"b.c\"'\r\nMSG a.y 1 1\r\nx\r\n-ERR 'Permissions Violation for Publish to \"a.x\"'\r\n-ERR 'Permissions Violation for Publish to \"b.c.d\"'\r\n"
    ),
    as_user!(
        "allow",
        "deny goes before allow",
        "SUB a.> 1\r\nSUB a.y 2\r\nSUB c 3\r\nPUB a.x 1\r\nx\r\nPUB a.z 1\r\nx\r\nPUB c 1\r\nx\r\nPUB a.y 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Subscription to \"a.y\"'\r\n-ERR 'Permissions Violation for Subscription to \"c\"'\r\n-ERR 'Permissions Violation for Publish to \"a.x\"'\r\nMSG a.z 1 1\r\nx\r\n"
    ),
    as_user!(
        "queues",
        "queue groups have rules of their own",
        "SUB q 1\r\nSUB q v1 2\r\nSUB q v1.a.b 3\r\nSUB q v2 4\r\nSUB q v1.prod 5\r\nSUB r x.dev 6\r\nSUB r 7\r\nSUB r x 8\r\n",
        "-ERR 'Permissions Violation for Subscription to \"q\" using queue \"v2\"'\r\n-ERR 'Permissions Violation for Subscription to \"q\" using queue \"v1.prod\"'\r\n-ERR 'Permissions Violation for Subscription to \"r\"'\r\n-ERR 'Permissions Violation for Subscription to \"r\" using queue \"x\"'\r\n"
    ),
    as_user!(
        "answers",
        "without a request nothing may be published",
        "SUB ask 1\r\nPUB r.1 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Publish to \"r.1\"'\r\n"
    ),
    as_user!(
        "two",
        "two answers to each request",
        "SUB ask 1\r\nSUB r.> 2\r\nPUB ask r.1 1\r\nx\r\nPUB r.1 1\r\na\r\nPUB r.1 1\r\nb\r\nPUB r.1 1\r\nc\r\nPUB r.2 1\r\nd\r\n",
        "MSG ask 1 r.1 1\r\nx\r\nMSG r.1 2 1\r\na\r\nMSG r.1 2 1\r\nb\r\n-ERR 'Permissions Violation for Publish to \"r.1\"'\r\n-ERR 'Permissions Violation for Publish to \"r.2\"'\r\n"
    ),
    as_user!(
        "mixed",
        "with answers, a deny list alone allows nothing else",
        "PUB x 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
    ),
    as_user!(
        "none",
        "may do nothing",
        "SUB a 1\r\nPUB a 1\r\nx\r\nPUB a 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Subscription to \"a\"'\r\n-ERR 'Permissions Violation for Publish to \"a\"'\r\n-ERR 'Permissions Violation for Publish to \"a\"'\r\n"
    ),
    row(
        "a hashed password",
        "CONNECT {\"verbose\":false,\"user\":\"hashed\",\"pass\":\"secret\"}\r\nPUB sandbox.a 1\r\nx\r\n",
        "",
    ),
    unauthorized(
        "a wrong password against a hash",
        "CONNECT {\"verbose\":false,\"user\":\"hashed\",\"pass\":\"wrong\"}\r\nPUB sandbox.a 1\r\nx\r\n",
    ),
    unauthorized(
        "the hash itself is no password",
        "CONNECT {\"verbose\":false,\"user\":\"hashed\",\"pass\":\"$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\"}\r\n",
    ),
    unauthorized(
        "a wrong user is not the no_auth_user",
        "CONNECT {\"verbose\":false,\"user\":\"nobody\",\"pass\":\"p\"}\r\n",
    ),
];

async fn check(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let server = start(kind, folder.path(), USERS).await;
    // A library without credentials must not be told that it needs some.
    let info = RawClient::connect(server.address()).await.info();
    assert_ne!(info["auth_required"], true, "{kind:?}: {info}");
    check_rows_at(kind, server.address(), server.http(), ROWS).await;
    if kind == ServerKind::Standin {
        let violations = ROWS
            .iter()
            .map(|row| row.receives.matches("Permissions Violation").count());
        let line = format!(
            "standin_broker_permission_violations_total {}\n",
            violations.sum::<usize>()
        );
        let (_, metrics) = server.http().get("/metrics").await.expect("the metrics");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

async fn start(kind: ServerKind, folder: &Path, text: &str) -> Node {
    let conf = folder.join("nats.conf");
    std::fs::write(&conf, text).expect("the settings are written");
    Node::start(kind, &["-c", &conf.display().to_string()]).await
}

cases! {
    check =>
    the_table_of_permissions_holds_on_standin_broker(ServerKind::Standin);
    the_table_of_permissions_holds_on_nats_server(ServerKind::NatsServer);
}

/// The request comes from another client, and the answer goes to it.
async fn check_answers(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let server = start(kind, folder.path(), USERS).await;
    let mut service = client_of(&server, "answers", "SUB ask 1\r\n").await;
    let mut asking = client_of(&server, "free", "SUB inbox.> 1\r\n").await;
    asking.send("PUB ask inbox.1 1\r\nx\r\n").await;
    service.expect("MSG ask 1 inbox.1 1\r\nx\r\n").await;
    service.send("PUB inbox.1 1\r\ny\r\nPUB inbox.1 1\r\nz\r\n").await;
    asking.expect("MSG inbox.1 1 1\r\ny\r\n").await;
    service
        .expect("-ERR 'Permissions Violation for Publish to \"inbox.1\"'\r\n")
        .await;
}

cases! {
    check_answers =>
    a_service_answers_each_request_once_on_standin_broker(ServerKind::Standin);
    a_service_answers_each_request_once_on_nats_server(ServerKind::NatsServer);
}

/// A reload cuts users that are gone or have another password, ends subscriptions that are no longer allowed, and keeps the rest.
async fn check_reload(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let before = "authorization { users = [ { user: stays, password: p }, { user: gone, password: p }, { user: less, password: p } ] }";
    let after = "authorization { users = [ { user: stays, password: p }, { user: less, password: p, permissions: { subscribe: { deny: b } } } ] }";
    let mut server = start(kind, folder.path(), before).await;
    let mut stays = client_of(&server, "stays", "SUB a 1\r\nSUB b 2\r\n").await;
    let mut gone = client_of(&server, "gone", "SUB a 1\r\n").await;
    let mut less = client_of(&server, "less", "SUB a 1\r\nSUB b 2\r\n").await;
    std::fs::write(folder.path().join("nats.conf"), after).expect("the settings are written");
    server.process().signal(Signal::SIGHUP);
    gone.read_to_end().await;
    less.expect("-ERR 'Permissions Violation for Subscription to \"b\" (sid \"2\")'\r\n")
        .await;
    stays.send("PUB b 1\r\nx\r\nPUB a 1\r\ny\r\n").await;
    stays.expect("MSG b 2 1\r\nx\r\nMSG a 1 1\r\ny\r\n").await;
    less.expect("MSG a 1 1\r\ny\r\n").await;
}

cases! {
    check_reload =>
    a_reload_cuts_only_what_is_no_longer_allowed_on_standin_broker(ServerKind::Standin);
    a_reload_cuts_only_what_is_no_longer_allowed_on_nats_server(ServerKind::NatsServer);
}

/// Permissions of routes: what a node takes from the others, and what it gives them, also through wildcards.
async fn check_routes(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let conf = folder.path().join("nats.conf");
    let port = e2e::port::free_address().port();
    // The flags give each node its own port.
    let text = format!(
        "cluster {{ port: {port}, permissions {{ import: {{ deny: [\"in.no\"] }}, export: {{ allow: [\"pub.>\", \"in.>\"], deny: [\"pub.no\"] }} }} }}\n"
    );
    std::fs::write(&conf, text).expect("the settings are written");
    let conf = conf.display().to_string();
    let mut mesh = Mesh::builder(kind, 2).flags(&["-c", &conf]).start().await;
    let mut reader = mesh.nodes[0].client().await;
    for (sid, subject) in ["pub.*", "pub.no", "in.*", "in.no", "other"].iter().enumerate() {
        reader.subscribe(subject, &sid.to_string()).await;
    }
    reader.subscribe("pub.end", "9").await;
    reader.flush().await;
    mesh.wait_until_linked(&[0, 1]).await;
    let mut writer = mesh.nodes[1].client().await;
    eventually("the interest has arrived", TIMEOUT, async || {
        writer.publish("pub.end", "probe").await;
        writer.flush().await;
        let frames = reader.flush().await;
        frames.iter().any(|frame| frame.payload() == b"probe")
    })
    .await;
    for subject in ["pub.yes", "pub.no", "in.yes", "in.no", "other"] {
        writer.publish(subject, subject).await;
    }
    writer.publish("pub.end", "end").await;
    writer.flush().await;
    let mut received = Vec::new();
    loop {
        let frame = reader.read_frame().await;
        let payload = String::from_utf8_lossy(frame.payload()).into_owned();
        match payload.as_str() {
            "end" => break,
            "probe" => {}
            _ => received.push(payload),
        }
    }
    received.sort();
    received.dedup();
    // nats-server applies "import" to subscriptions only, so the wildcard lets `in.no` through.
    let expected = match kind {
        ServerKind::Standin => &["in.yes", "pub.yes"][..],
        _ => &["in.no", "in.yes", "pub.yes"],
    };
    assert_eq!(received, expected);
}

cases! {
    check_routes =>
    permissions_of_routes_hold_for_wildcards_on_standin_broker(ServerKind::Standin);
    permissions_of_routes_hold_for_wildcards_on_nats_server(ServerKind::NatsServer);
}
