//! Tests of converted files: they set the same as the file that was converted, and name what is missing.

use std::path::Path;

use standin_daemon::settings::Input;

use super::*;

/// Returns the settings of a file as a server reads it.
fn read(path: &Path) -> Settings {
    let input = Input {
        file: Some(path),
        ..Input::default()
    };
    input.load().unwrap().settings
}

fn imported(text: &str) -> Imported {
    Imported::of("nats.conf", text).unwrap()
}

#[test]
fn an_imported_file_sets_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "",
        "port: 4333\nhttp: \"127.0.0.1:8333\"\nserver_name: n1\nmax_payload: 64KB\nwrite_deadline: \"1.5s\"\ntrace: true\n",
        "port: 1\nport: 2\nlogfile: '/var/log/a b.log'\nping_interval: 30\n",
        "authorization { user: u, password: 's3\"c\\r et', timeout: 1.5 }\n",
        "authorization {\n default_permissions { publish: 'a.>' }\n users: [\n  { user: a, password: b, permissions { publish { deny: x } } }\n \
         { user: c, password: \"$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\" }\n ]\n}\n",
        "accounts { A { users: [ { user: a, password: b } ], limits { max_connections: 3, over_rate: wait } }\n B {} }\nno_auth_user: a\n",
        "cluster { name: c, host: '::1', port: 6222, no_advertise: true, ping_interval: 2\n authorization { user: r, password: 'p q' }\n \
         routes = [ nats-route://r:x@10.0.0.2:6222, nats://10.0.0.3:6222 ] }\n",
    ] {
        let conf = folder.path().join("nats.conf");
        std::fs::write(&conf, text).unwrap();
        let imported = imported(text);
        assert!(imported.left_out.is_empty(), "{text}: {:?}", imported.left_out);
        let toml = folder.path().join("broker.toml");
        std::fs::write(&toml, &imported.toml).unwrap();
        assert_eq!(read(&toml), read(&conf), "{text}\n{}", imported.toml);
    }
}

#[test]
fn each_key_that_is_left_out_is_named_with_its_place_and_the_reason() {
    let text = "port: 4222\njetstream { store_dir: /x }\nmax_payload: 65MB\nserver_tags: [a]\nloggfile: x\n\
                leafnodes { port: 7422 }\nlogtime: false\ncluster {\n port: 6222\n pool_size: 3\n}\n";
    let Imported { toml, left_out } = imported(text);
    let lines: Vec<String> = left_out.iter().map(ToString::to_string).collect();
    for (at, part) in [
        "nats.conf:2: jetstream: JetStream is not supported",
        "nats.conf:3: ",
        "nats.conf:4: server_tags has no effect",
        "nats.conf:5: unknown key `loggfile`",
        "nats.conf:6: leafnodes: leaf nodes are not supported",
        "nats.conf:7: logtime has no effect",
        "nats.conf:10: cluster.pool_size has no effect",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(lines[at].starts_with(part), "{lines:#?}");
        assert!(
            toml.contains(&format!("# not carried over: {}", lines[at])),
            "{toml}"
        );
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
    assert!(lines[2 - 1].contains("max_payload"), "{lines:#?}");
    assert!(toml.contains("port = 4222  # nats.conf:1, port\n"), "{toml}");
    assert!(!toml.contains("chmod"), "{toml}");
}

#[test]
fn secrets_are_carried_over_and_pointed_out_but_not_repeated_in_remarks() {
    let Imported { toml, left_out } =
        imported("authorization { user: u, password: hunter2, hunter3: x }\nport: hunter4\n");
    assert!(toml.contains("hunter2") && toml.contains("chmod 600"), "{toml}");
    assert!(!toml.contains("hunter3") && !toml.contains("hunter4"), "{toml}");
    assert_eq!(left_out.len(), 2, "{left_out:?}");
}

/// Without the list of users, the server would admit everybody.
#[test]
fn a_file_with_an_invalid_user_is_refused() {
    let text = "port: 4222\nauthorization {\n users: [\n  { user: a, password: b }\n  { user: c, password: \"$2a$11$cut\" }\n ]\n}\n";
    let error = Imported::of("nats.conf", text).unwrap_err().to_string();
    assert!(
        error.starts_with("nats.conf:3: authorization.users.password begins like"),
        "{error}"
    );
}

#[test]
fn a_file_with_a_syntax_error_is_refused() {
    let error = Imported::of("nats.conf", "port: 4222\ncluster {\n")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("nats.conf:"), "{error}");
    let error = Imported::of("nats.conf", "port: $MISSING_VARIABLE\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("MISSING_VARIABLE"), "{error}");
}
