//! Files as people have them, and slips with the line where they were made.

use std::fs;

use standin_daemon::settings::Input;

use crate::auth::Access;
use crate::settings::Settings;

fn load(name: &str, text: &str) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let input = Input {
        file: Some(&path),
        ..Input::default()
    };
    let shown = format!("{}/", folder.path().display());
    let loaded = input
        .load()
        .map_err(|error| error.to_string().replace(&shown, ""))?;
    Ok(loaded.settings)
}

#[test]
fn a_cluster_of_nats_server_is_taken_for_what_it_says() {
    let text = "
        port: 4222
        cluster {
          name: c, listen: localhost:6222, no_advertise: true, pool_size: 3, compression: off
          authorization { user: r, password: s3cr3t, timeout: 2 }
          routes = [
            nats-route://r:s3cr3t@10.0.0.2:6222
            nats://10.0.0.3:6222
          ]
        }
    ";
    let settings = load("nats.conf", text).unwrap();
    assert_eq!(settings.mesh_listen().unwrap().to_string(), "127.0.0.1:6222");
    let routes = settings.routes();
    assert_eq!(routes[0].endpoint.to_string(), "10.0.0.2:6222");
    assert_eq!(routes[0].credentials, Some(("r".to_owned(), "s3cr3t".to_owned())));
    assert_eq!((routes.len(), &routes[1].credentials), (2, &None));
    let cluster = settings.cluster;
    assert_eq!((&*cluster.name, cluster.no_advertise), ("c", true));
    assert_eq!((&*cluster.user, cluster.password.reveal()), ("r", "s3cr3t"));
}

#[test]
fn a_file_of_nats_server_is_taken_for_what_it_says() {
    let text = "
        # A comment, and another
        // in the other style
        listen: 127.0.0.1:4333
        server_name = n1; client_advertise \"h:1\"
        http: \"0.0.0.0:8333\"
        USER = derek
        authorization {
          timeout: \"3s\", users = [
            { user: $USER, password: s3cr3t }
            { user: 'b b', pass: \"c\\\"c\" },
          ]
        }
        max_payload = 128KB
        max_control_line: 2048
        max_connections: 1k, max_subs: 10
        max_pending: 8MB
        write_deadline: \"2s\"
        ping_interval: 30
        ping_max: 3
        debug: true
        trace: off
        logtime: true
        pid_file: /tmp/pid
        lame_duck_duration: \"1m30s\"
        lame_duck_grace_period: \"2s\"
    ";
    let settings = load("nats.conf", text).unwrap();
    assert_eq!(settings.listen().to_string(), "127.0.0.1:4333");
    assert_eq!(settings.http_listen().unwrap().to_string(), "0.0.0.0:8333");
    assert_eq!(
        (settings.server_name.as_str(), settings.advertise.as_str()),
        ("n1", "h:1")
    );
    let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    assert_eq!(
        settings.access(),
        Access::Users(vec![pair("derek", "s3cr3t"), pair("b b", "c\"c")])
    );
    assert_eq!(settings.authorization.timeout_ms.0, 3000);
    let limits = &settings.limits;
    assert_eq!((limits.max_payload, limits.max_control_line), (131_072, 2048));
    assert_eq!(
        (
            limits.max_connections,
            limits.max_subscriptions,
            limits.max_pending
        ),
        (1000, 10, 8 << 20)
    );
    assert_eq!(
        (
            limits.write_deadline_ms.0,
            limits.ping_interval_ms.0,
            limits.ping_max
        ),
        (2000, 30_000, 3)
    );
    assert_eq!(settings.log.level, "debug");
    assert_eq!(settings.process.pid_file.to_str(), Some("/tmp/pid"));
    assert_eq!(
        (
            settings.process.lame_duck_secs.0,
            settings.process.lame_duck_grace_secs.0
        ),
        (90, 2)
    );
}

#[test]
fn the_format_shows_by_the_name_or_by_the_text() {
    for (name, text) in [
        ("a.conf", "port: 4333"),
        ("a", "port: 4333"),
        ("a", "port = 4333"),
        ("a.toml", "port = 4333"),
        ("a.json", "{\"port\": 4333}"),
    ] {
        let settings = load(name, text);
        assert_eq!(settings.map(|settings| settings.port), Ok(4333), "{name} {text}");
    }
    assert_eq!(
        load("a.toml", "port 4333 x").unwrap_err(),
        "a.toml:1: not TOML: key with no value, expected `=`"
    );
    let token = load("a", "authorization { token: \"$ecret\" }").unwrap();
    assert_eq!(token.access(), Access::Token("$ecret".to_owned()));
}

#[test]
fn what_means_nothing_or_no_limit_is_taken() {
    let text = "host: localhost\njetstream: disabled\nsyslog: false\nprof_port: 0\nmax_traced_msg_len: 3\n\
                max_connections: -1\nmax_subscriptions: -1\nauthorization { token: t, timeout: 0.5 }\n";
    let settings = load("x.conf", text).unwrap();
    assert_eq!(settings.addr, "127.0.0.1");
    assert_eq!(
        (settings.limits.max_connections, settings.limits.max_subscriptions),
        (1_000_000, 0)
    );
    assert_eq!(settings.authorization.timeout_ms.0, 500);
}

#[test]
fn what_cannot_be_is_told_with_its_line() {
    for (text, error) in [
        (
            "\njetstream: enabled",
            "x.conf:2: unknown key `jetstream`; this server has nothing of that name",
        ),
        ("gateway {\n port: 1\n}", "x.conf:1: unknown key `gateway`"),
        (
            "cluster {\n tls: { cert_file: \"x\" }\n}",
            "x.conf:2: unknown key `tls` in cluster",
        ),
        (
            "cluster {\n port: 1, routes: 7\n}",
            "x.conf:2: routes must be a list of nats://host:port",
        ),
        (
            "authorization {\n  permissions: 1\n}",
            "x.conf:2: unknown key `permissions` in authorization",
        ),
        (
            "authorization {\n  users: [\n{ nkey: U }]\n}",
            "x.conf:3: unknown key `nkey` in authorization.users",
        ),
        (
            "authorization {\n password: \"$2a$11$x\"\n}",
            "x.conf:2: password is hashed (bcrypt)",
        ),
        (
            "max_payload: many",
            "x.conf:1: max_payload must be a whole number, not a text",
        ),
        (
            "max_payload: 0",
            "x.conf:1: limits.max_payload must be a whole number from 1 to 67108864, not 0",
        ),
        (
            "listen: here",
            "x.conf:1: listen must be host:port, or a port, not a text",
        ),
        (
            "ping_interval: soon",
            "x.conf:1: ping_interval must be a time, such as \"10s\"",
        ),
        (
            "debug: perhaps",
            "x.conf:1: debug must be true or false, not a text",
        ),
        (
            "a {\n b: 1\n",
            "x.conf:3: not nats-server's format: a `{` is never closed",
        ),
        (
            "a [ 1\n",
            "x.conf:2: not nats-server's format: a `[` is never closed",
        ),
        (
            "a: \"x\n",
            "x.conf:2: not nats-server's format: a text is never closed",
        ),
        (
            "port:\n",
            "x.conf:2: not nats-server's format: a value is missing here",
        ),
        (
            "port: $NO_SUCH_VARIABLE_HERE",
            "x.conf:1: not nats-server's format: $NO_SUCH_VARIABLE_HERE is neither",
        ),
        (
            "include other.conf",
            "x.conf:1: not nats-server's format: include is not read",
        ),
        (
            "{ port: 1 } port: 2",
            "x.conf:1: not nats-server's format: something follows",
        ),
        ("never: 1\nport: 4333", "x.conf:1: unknown key `never`"),
        ("}", "x.conf:1: not nats-server's format: a key is missing here"),
    ] {
        let refused = load("x.conf", text).unwrap_err();
        assert!(refused.starts_with(error), "{text:?}: {refused}");
    }
    let deep = format!("a {}", "{a ".repeat(1000));
    assert!(load("x.conf", &deep).unwrap_err().contains("deeper than is read"));
    let deep = format!("a {}", "[".repeat(1000));
    assert!(load("x.conf", &deep).unwrap_err().contains("deeper than is read"));
}
