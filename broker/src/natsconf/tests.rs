//! Tests of complete files, and of errors with their line numbers.

use std::fs;

use standin_daemon::settings::Input;

use crate::auth::Access;
use crate::settings::Settings;

mod syntax;

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
fn the_cluster_block_of_a_nats_server_file_is_converted() {
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
    let toml = r#"
        [cluster]
        name = "c"
        listen = "localhost:6222"
        no_advertise = true
        user = "r"
        password = "s3cr3t"
        routes = ["nats-route://r:s3cr3t@10.0.0.2:6222", "nats://10.0.0.3:6222"]
    "#;
    let settings = load("nats.conf", text).unwrap();
    assert_eq!(settings, Settings::from_toml(toml).unwrap());
    let [first, second] = &settings.routes()[..] else {
        panic!("expected two routes")
    };
    assert_eq!(first.endpoint.to_string(), "10.0.0.2:6222");
    assert_eq!(first.credentials, Some(("r".to_owned(), "s3cr3t".into())));
    assert_eq!(second.credentials, None);
}

#[test]
fn a_nats_server_file_is_converted() {
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
        # It includes the grace period, as in nats-server.
        lame_duck_duration: \"1m30s\"
        lame_duck_grace_period: \"2s\"
    ";
    let toml = r#"
        addr = "127.0.0.1"
        port = 4333
        server_name = "n1"
        advertise = "h:1"
        [http]
        addr = "0.0.0.0"
        port = 8333
        [authorization]
        timeout_ms = 3000
        users = [{ user = "derek", password = "s3cr3t" }, { user = "b b", password = "c\"c" }]
        [limits]
        max_payload = 131072
        max_control_line = 2048
        max_connections = 1000
        max_subscriptions = 10
        max_pending = 8388608
        write_deadline_ms = 2000
        ping_interval_ms = 30000
        ping_max = 3
        [log]
        level = "debug"
        [process]
        pid_file = "/tmp/pid"
        lame_duck_secs = 88
        lame_duck_grace_secs = 2
    "#;
    assert_eq!(
        load("nats.conf", text).unwrap(),
        Settings::from_toml(toml).unwrap()
    );
}

#[test]
fn the_format_is_detected_by_name_or_text() {
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
    let token = load("a", "authorization { token: \"$ecret\" }").unwrap();
    assert_eq!(token.access(), Access::of_token("$ecret"));
}

#[test]
fn errors_are_those_of_the_detected_format() {
    let not_toml = "not TOML: key with no value, expected `=`";
    for (name, text, error) in [
        (
            "nats.cfg",
            "authorization { permissions: x }\n",
            "authorization.permissions must be a block: { publish: …, subscribe: … }, not a string",
        ),
        ("nats", "port 4333 x\n", not_toml),
        ("nats.toml", "port 4333 x\n", not_toml),
        ("nats.toml", "tls { cert_file: x }\n", not_toml),
    ] {
        assert_eq!(load(name, text), Err(format!("{name}:1: {error}")));
    }
}

#[test]
fn values_that_mean_off_or_no_limit_are_accepted() {
    let text = "host: localhost\njetstream: disabled\nsyslog: false\nprof_port: 0\nmax_traced_msg_len: 3\n\
                max_connections: -1\nmax_subscriptions: -1\nauthorization { token: t, timeout: 0.5 }\n";
    let toml = "addr = 'localhost'\nlimits.max_connections = 1000000\nlimits.max_subscriptions = 0\n\
                authorization.token = 't'\nauthorization.timeout_ms = 500\n";
    assert_eq!(load("x.conf", text), Ok(Settings::from_toml(toml).unwrap()));
}

#[test]
fn zero_means_the_default_as_in_nats_server() {
    let text = "port: 0\nmax_connections: 0\nmax_pending: 0\nlame_duck_grace_period: \"0s\"\n";
    assert_eq!(load("x.conf", text), Ok(Settings::from_toml("").unwrap()));
}

#[test]
fn limits_as_large_as_in_nats_server_are_accepted() {
    for (text, payload, pending) in [
        ("max_payload: 63MB\n", 63 << 20, 64 << 20),
        ("max_payload: 64MB\n", 64 << 20, 64 << 20),
        ("max_payload: 64MB\ncluster { port: -1 }\n", 64 << 20, 64 << 20),
        ("max_pending: 3GB\n", 1 << 20, 3 << 30),
    ] {
        let limits = load("x.conf", text).unwrap().limits;
        let found = (limits.max_payload, limits.max_pending);
        assert_eq!(found, (payload, pending), "{text}");
    }
}

#[test]
fn a_cluster_without_a_port_is_ignored_with_a_warning() {
    let text = "net: node.example\ncluster { name: c, routes: [ nats://127.0.0.1:6222 ] }\n";
    let settings = load("x.conf", text).unwrap();
    assert_eq!(settings.listen().to_string(), "node.example:4222");
    assert!(!settings.is_clustered());
    assert_eq!(
        super::read("x.conf", text).warnings,
        ["x.conf:2: cluster.routes has no effect: the block has no port, so the server is not clustered"]
    );
}

#[test]
fn keys_without_effect_are_accepted() {
    let text = "server_tags: [a, 'b']\nserver_metadata { a: b }\nmax_closed_clients: 5\nno_sys_acc: true\nlogfile_size_limit: 5MB\n\
                logfile_max_num: 3\nlogtime_utc: true\nlogtime: false\njetstream { enabled: false, store_dir: /x }\ntls: false\naccounts {}\n\
                gateway {}\nleafnodes {}\nmqtt {}\nwebsocket {}\nmappings {}\ntrusted_keys: []\nocsp: false\nallow_non_tls: true\n\
                remote_syslog: \"\"\nhttps_port: 0\nno_header_support: false\nno_fast_producer_stall: true\nproxy_protocol: false\n\
                store_dir: /x\nwrite_timeout: close\nhttp_base_path: /\n\
                cluster { port: -1, compression: { mode: s2_auto }, pool_size: 3, accounts: [], permissions {} }\n\
                authorization { default_permissions {}, users: [\n\
                { user: a, password: b, permissions {}, allowed_connection_types: [STANDARD, WEBSOCKET] }\n { user: c }\n] }\n";
    assert_eq!(
        load("x.conf", text).unwrap().access(),
        Access::of_passwords([("a", "b"), ("c", "")])
    );
    let warnings = super::read("x.conf", text).warnings;
    let [size, time] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(size.contains(":5: logfile_size_limit has no effect: the log file is not rotated by size"));
    assert!(time.contains(":8: logtime has no effect: log lines always have a timestamp"));
}

/// In a file of nats-server, a port for the pages means the address for clients, unless a host is given.
#[test]
fn the_pages_are_on_the_address_for_clients_as_in_nats_server() {
    for (text, address) in [
        ("host: 127.0.0.2, http_port: 3", "127.0.0.2:3"),
        ("monitor_port: 3", "0.0.0.0:3"),
        ("http: 3", "0.0.0.0:3"),
        ("http: \"127.0.0.3:3\", host: 127.0.0.2", "127.0.0.3:3"),
    ] {
        let settings = load("x.conf", text).unwrap();
        let listen = settings.http_listen().map(|address| address.to_string());
        assert_eq!(listen.as_deref(), Some(address), "{text}");
        assert!(!settings.tls.http.is_on(), "{text}");
    }
    for text in ["http_port: 0", "https_port: 0", "http: 0", "https: 0"] {
        assert_eq!(load("x.conf", text).unwrap().http_listen(), None, "{text}");
    }
    for text in [
        "https_port: 3",
        "https: \"127.0.0.3:3\"",
        "http_port: 0, https_port: 3",
    ] {
        let error = "tls.http: cert_file and key_file are not set: a server needs a certificate";
        assert_eq!(load("x.conf", text).unwrap_err(), error, "{text}");
    }
    for text in ["http_port: 3\nhttps_port: 4", "http: 3\nhttps: \"h:4\""] {
        let error = load("x.conf", text).unwrap_err();
        assert!(
            error.contains(" is set, and a port for HTTP too; keep one of them"),
            "{text}: {error}"
        );
    }
}

#[test]
fn all_unsupported_features_are_refused_by_name_in_one_run() {
    let text = "tls { cert_store: x }\nhttp_base_path: /x\njetstream {}\naccounts { A { exports: [x] } }\n\ngateway { name: x }\n\
                leafnodes { port: 1 }\nmqtt { port: 1 }\nwebsocket { port: 1 }\nmappings { a: b }\noperator: x\nsyslog: true\n\
                prof_port: 6060\n\nproxy_protocol: true\nno_header_support: true\n\
                cluster { port: -1, tls { cipher_suites: [x] }, permissions { import: 7 } }\n\
                authorization { permissions { publish: {} }, users: [\n\
                { nkey: U }\n{ user: a, permissions { never: a } }\n{ user: b, connection_types: [MQTT] }\n{ password: c }\n] }\n\
                never: 1\n";
    let refused = load("x.conf", text).unwrap_err();
    assert_eq!(
        refused.lines().collect::<Vec<_>>(),
        [
            "x.conf:1: tls.cert_store: a choice of ciphers, curves or stored certificates is not supported: those of rustls are used",
            "x.conf:2: http_base_path: another base path for the pages is not supported",
            "x.conf:3: jetstream: JetStream is not supported: it needs nats-server",
            "x.conf:4: accounts.exports: imports and exports between accounts are not supported",
            "x.conf:6: gateway: gateways are not supported: they need nats-server",
            "x.conf:7: leafnodes: leaf nodes are not supported: they need nats-server",
            "x.conf:8: mqtt: MQTT is not supported: it needs nats-server",
            "x.conf:9: websocket: WebSocket is not supported: it needs nats-server",
            "x.conf:10: mappings: subject mappings are not supported",
            "x.conf:11: operator: operators and JWTs are not supported: they need nats-server",
            "x.conf:12: syslog: logging to syslog is not supported: the log goes to standard error, or to the file of --log",
            "x.conf:13: prof_port: profiling is not supported",
            "x.conf:15: proxy_protocol: the PROXY protocol is not supported",
            "x.conf:16: no_header_support: switching headers off is not supported",
            "x.conf:17: cluster.tls.cipher_suites: a choice of ciphers, curves or stored certificates is not supported: those of rustls are used",
            "x.conf:19: an entry of authorization.users has an `nkey` that is not the public key of a user: U and 55 more characters",
            "x.conf:20: unknown key in authorization.users (unknown in nats-server too)",
            "x.conf:21: authorization.users.connection_types: users for WebSocket, MQTT or leaf nodes are not supported: only STANDARD is",
            "x.conf:22: an entry of authorization.users has no user",
            "x.conf:24: unknown key `never` (unknown in nats-server too)",
            "tls.client: cert_file and key_file are not set: a server needs a certificate",
            "tls.route: cert_file and key_file are not set: a server needs a certificate",
        ]
    );
}

#[test]
fn all_errors_of_a_file_are_reported_in_one_run() {
    for (text, errors) in [
        (
            "port: $NO_SUCH\nmax_payload: 0x\ninclude no.conf\nnever: 1\nlisten [\n$NO_SUCH_2\n]\n",
            &[
                "1: the variable $NO_SUCH is neither a key above nor in the environment (put a string that begins with $ in quotes)",
                "2: max_payload must be a whole number, not a string",
                "3: cannot read the included file no.conf: No such file or directory (os error 2)",
                "4: unknown key `never` (unknown in nats-server too)",
                "5: listen must be host:port, or a port, not a list",
                "6: the variable $NO_SUCH_2 is neither a key above nor in the environment (put a string that begins with $ in quotes)",
            ][..],
        ),
        // Of several syntax errors in a line, only the first is reported.
        (
            "port: -x -y\nnever: 1\ncluster { port: 6333\n name: \"\\q\"\n gossip: 1\n routes [\n  -z\n 7 8\n ]\n}\nhttp_port: x",
            &[
                "1: `-` is not followed by a number; put a string in quotes",
                "2: unknown key `never` (unknown in nats-server too)",
                "4: unknown escape sequence; the known ones are \\xXX \\n \\t \\r \\\" \\\\",
                "5: unknown key `cluster.gossip` (unknown in nats-server too)",
                "7: `-` is not followed by a number; put a string in quotes",
                "8: `,` or `]` is missing before `8`",
                "8: cluster.routes must be [nats://][user:password@]host:port, not \"7\"",
                "11: http_port must be a whole number, not a string",
            ],
        ),
        // The keys of a block that is never closed are checked.
        (
            "cluster {\n gossip: 1\n",
            &[
                "2: unknown key `cluster.gossip` (unknown in nats-server too)",
                "3: a `{` is never closed",
            ],
        ),
        // Conflicting values are reported together with invalid ones.
        (
            "port: 4333\nhttp_port: 4333\ntls { pinned_certs: [x] }\nping_max: -1\nmax_pending: 1MB\nmax_payload: 2MB\n",
            &[
                "2: http.port and port are both 4333; give each its own",
                "3: tls.pinned_certs: pinned certificates are not supported: with verify, ca_file says whose certificates are accepted",
                "4: ping_max must be a whole number from 1 to 100, not -1",
                "5: limits.max_pending (1048576) is below limits.max_payload (2097152): one message could make a client a slow \
                 consumer; raise limits.max_pending or lower limits.max_payload",
            ],
        ),
        // A value of the wrong type is not checked for conflicts.
        (
            "max_pending: 1MB\nmax_payload: many\n",
            &["2: max_payload must be a whole number, not a string"],
        ),
        (
            "authorization { user: $NO_SUCH, password: x }\n",
            &[
                "1: the variable $NO_SUCH is neither a key above nor in the environment (put a string that begins with $ in quotes)",
            ],
        ),
        (
            "P: $NO_SUCH\nauthorization { user: u, password: $P }\n",
            &[
                "1: the variable $NO_SUCH is neither a key above nor in the environment (put a string that begins with $ in quotes)",
            ],
        ),
    ] {
        let refused = load("x.conf", text).unwrap_err();
        let refused: Vec<_> = refused
            .lines()
            .map(|line| line.trim_start_matches("x.conf:"))
            .collect();
        assert_eq!(refused, errors, "{text}");
    }
}

#[test]
fn no_part_of_a_password_without_quotes_is_shown() {
    for text in [
        "authorization { user: u\n password: hunter2,secret\n}\n",
        "authorization { user: u\n password: hunter2;secret\n}\n",
        "authorization { user: u\n password: {hunter2secret\n}\n",
        "authorization { user: u\n hunter2secret }\n",
        "authorization { user: u\n hunter2secret\n}\n",
        "authorization { user: u, password: $hunter2secret }\n",
        "authorization { user: u, hunter2secret: 1 }\n",
        "authorization { users: [ { user: u, hunter2secret: 1 } ] }\n",
        "cluster { port: 1, authorization { user: u, hunter2secret: 1 } }\n",
    ] {
        let refused = load("x.conf", text).unwrap_err();
        assert!(!refused.contains("secret"), "{text}: {refused}");
        assert!(!refused.contains("never closed"), "{text}: {refused}");
    }
}

#[test]
fn errors_are_short_and_without_control_characters() {
    let long = "x".repeat(100_000);
    for text in [
        format!("{long}: 1\n"),
        format!("server_name: \"{long} \"\n"),
        "k: 1\n".replace('k', "\u{1b}[31m"),
        (0..5000).map(|number| format!("k{number}: 1\n")).collect(),
    ] {
        let refused = load("x.conf", &text).unwrap_err();
        let is_control = |next: char| next.is_control() && next != '\n';
        assert!(!refused.contains(is_control), "{refused}");
        assert!(refused.len() < 10_000, "{} bytes", refused.len());
    }
}

#[test]
fn users_have_permissions_and_accounts() {
    let text = "no_auth_user: a\naccounts {\n A { users: [ { user: a, permissions: { publish: x, subscribe: { allow: [\"y q\"], deny: z }, \
                allow_responses: { max: 3, expires: \"1m\" } } } ], limits { max_conn: 5, max_payload: -1, over_rate: refuse } }\n B {} }\n\
                authorization { default_permissions: { pub: [] }, users: [ { user: c, password: d } ] }\n";
    let toml = "[authorization]\nno_auth_user = 'a'\ndefault_permissions = { publish = { allow = [] } }\n\
                users = [{ user = 'c', password = 'd' }]\n\
                [[accounts]]\nname = 'A'\nmax_connections = 5\nover_rate = 'refuse'\n\
                [[accounts.users]]\nuser = 'a'\n[accounts.users.permissions]\npublish = { allow = ['x'] }\n\
                subscribe = { allow = ['y q'], deny = ['z'] }\nallow_responses = { max = 3, expires_ms = 60000 }\n\
                [[accounts]]\nname = 'B'\n";
    assert_eq!(load("x.conf", text), Ok(Settings::from_toml(toml).unwrap()));
}

#[test]
fn a_bcrypt_hash_is_taken_for_users_and_refused_for_routes() {
    const HASH: &str = "$2a$11$3kIDaCxw.Glsl1.u5nKa6eUnNDLV5HV9tIuUp7EHhMt6Nm9myW1aS";
    for (text, route) in [
        ("authorization { user: u, password: @ }", None),
        ("authorization { user: u, password: \"@\" }", None),
        ("authorization { user: u, pass: '@' }", None),
        ("authorization { token: @ }", None),
        ("authorization { users: [ { user: u, password: @ } ] }", None),
        ("P: @\nauthorization { user: u, password: $P }", None),
        ("accounts { A { users: [ { user: u, password: @ } ] } }", None),
        (
            "cluster { port: 1, authorization { user: u, password: @ } }",
            Some("cluster.authorization.password"),
        ),
        (
            "cluster { port: 1, routes: [ \"nats://u:@@h:1\" ] }",
            Some("cluster.routes"),
        ),
    ] {
        for version in ["$2a$", "$2b$", "$2x$", "$2y$"] {
            let text = text.replacen('@', &HASH.replace("$2a$", version), 1) + "\n";
            let loaded = load("x.conf", &text).map(|settings| settings.access().is_required());
            let expected = route.map_or(Ok(true), |key| {
                let what = "is a bcrypt hash, but nodes send it to each other; give the password itself";
                Err(format!("x.conf:{}: {key} {what}", text.lines().count()))
            });
            assert_eq!(loaded, expected, "{text}");
        }
    }
    for plain in ["$2a$", "$2a$1", "$2c$11$x", "2a$11$x"] {
        let text = format!("authorization {{ user: u, password: \"{plain}\" }}\n");
        assert_eq!(syntax::password(&text).as_deref(), Ok(plain));
    }
}

#[test]
fn invalid_files_are_refused_with_the_line_of_the_error() {
    for (text, error) in [
        (
            "cluster {\n port: 1, routes: 7\n}",
            "2: cluster.routes must be a list of nats://host:port, not 7",
        ),
        (
            "cluster { port: 1\n routes: [\n \"http://u:secret@h:1\"\n]\n}",
            "3: cluster.routes must be [nats://][user:password@]host:port, not \"http://u:***@h:1\"",
        ),
        (
            "cluster {\n port: 1\n advertise: \"0.0.0.0:1\"\n}",
            "3: cluster.advertise must be a reachable host:port or host, or empty, not \"0.0.0.0:1\"",
        ),
        (
            "client_advertise: \"x:y\"",
            "1: client_advertise must be a reachable host:port or host, or empty, not \"x:y\"",
        ),
        (
            "cluster {\n gossip: 1\n}",
            "2: unknown key `cluster.gossip` (unknown in nats-server too)",
        ),
        (
            "max_payload: many",
            "1: max_payload must be a whole number, not a string",
        ),
        (
            "max_payload: -1",
            "1: max_payload must be a whole number from 1 to 67108864, not -1",
        ),
        (
            "listen: here",
            "1: listen must be host:port, or a port, not a string",
        ),
        (
            "listen: \"a b:1\"",
            "1: listen must be an IP address, such as \"127.0.0.1\", or the name of this host, not \"a b\"",
        ),
        (
            "ping_interval: soon",
            "1: ping_interval must be a time, such as \"10s\"",
        ),
        (
            "ping_interval: 2m",
            "1: ping_interval must be a time from 10 to 86400000 ms, not 2m",
        ),
        ("debug: perhaps", "1: debug must be true or false, not a string"),
        ("a {\n b: 1\n", "3: a `{` is never closed"),
        ("a{\n b: 1\n}\n", "1: a space is missing between a and `{`"),
        ("{ port: 1", "1: a `{` is never closed"),
        ("a [ 1\n", "2: a `[` is never closed"),
        ("a [ 1 2 ]\n", "1: `,` or `]` is missing before `2`"),
        ("a { b: c d }\n", "1: `,` or `}` is missing before `d`"),
        ("a b c\n", "1: a line end or `,` is missing before `c`"),
        ("a: \"x\n", "1: a quoted string is never closed"),
        (
            "a: (\nx\n",
            "1: a `(` is never closed by a `)` on a line of its own",
        ),
        (
            "a: \"\\q\"",
            "1: unknown escape sequence; the known ones are \\xXX \\n \\t \\r \\\" \\\\",
        ),
        (
            "a: \"\\x4g\"",
            "1: \\x must be followed by two hexadecimal digits",
        ),
        ("a: \"\\xff\"", "1: a string is not UTF-8"),
        (
            "a: -x",
            "1: `-` is not followed by a number; put a string in quotes",
        ),
        (
            "a: -1:x",
            "1: `-` is not followed by a number alone; put a string in quotes",
        ),
        ("a: 5-3", "1: neither a number nor a date"),
        ("a: 99999999999g", "1: number too large"),
        ("port:\n", "1: a key has no value"),
        ("authorization { user: u, password: }", "1: a key has no value"),
        (
            "port: $NO_SUCH_VARIABLE_HERE",
            "1: the variable $NO_SUCH_VARIABLE_HERE is neither a key above nor in the environment",
        ),
        ("P: 1\na { b: $p }", "2: the variable $*** is neither a key above"),
        (
            "authorization { token: $ecr-et }",
            "1: the variable $*** is neither a key above",
        ),
        ("never: 1\nport: 4333", "1: unknown key `never`"),
        ("}", "1: a key is missing"),
    ] {
        let refused = load("x.conf", text).unwrap_err();
        let mut lines = refused.lines().filter_map(|line| line.strip_prefix("x.conf:"));
        assert!(lines.any(|line| line.starts_with(error)), "{text:?}: {refused}");
    }
    for deep in ["{ a ", "[", "{ a [ "] {
        let refused = load("x.conf", &format!("a {}", deep.repeat(1000))).unwrap_err();
        assert!(
            refused.contains("are nested too deeply (limit 32)"),
            "{deep}: {refused}"
        );
    }
}

#[test]
fn an_empty_block_tls_is_refused_because_it_asks_for_tls_without_a_certificate() {
    for (text, door) in [
        ("tls {}\n", "client"),
        ("cluster { port: -1, tls {} }\n", "route"),
    ] {
        let error = format!("tls.{door}: cert_file and key_file are not set: a server needs a certificate");
        assert_eq!(load("x.conf", text).unwrap_err(), error);
    }
}

#[test]
fn users_of_the_system_account_alone_do_not_make_others_log_in() {
    let access = |text: &str| load("x.conf", text).unwrap().access();
    for text in [
        "accounts { $SYS { users: [ { user: a, password: b } ] } }\n",
        "accounts { S { users: [ { user: a, password: b } ] } }\nsystem_account: S\n",
    ] {
        let access = access(text);
        assert!(access.has_users() && !access.is_required(), "{text}");
    }
    let other = "accounts { $SYS { users: [ { user: a, password: b } ] }, A { users: [ { user: c, password: d } ] } }\n";
    assert!(access(other).is_required());
}
