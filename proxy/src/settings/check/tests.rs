//! The refused settings with their error texts, and the comparison of the ranges with `deploy/proxy.toml`.

use standin_daemon::settings::{Input, changes, faults, reloaded};

use super::*;
use crate::settings::ListenerSection;

fn refused(text: &str) -> String {
    Settings::from_toml(text).unwrap_err().to_string()
}

/// Asserts that each text is refused with an error that begins with the second text.
#[track_caller]
fn assert_refused(cases: &[(&str, &str)]) {
    for (text, error) in cases {
        let refused = refused(text);
        assert!(refused.starts_with(error), "{text}: {refused}");
    }
}

#[test]
fn the_default_file_documents_each_key_with_its_range_and_whether_it_needs_a_restart() {
    assert_eq!(faults(&SCHEMA), [""; 0]);
}

#[test]
fn a_reload_keeps_the_values_that_need_a_restart() {
    let old = Settings::from_toml("").unwrap();
    let new = Settings::from_toml(
        "listen = [\"127.0.0.1:1\"]\n[limits]\nworkers = 7\nconnections_max = 9\n[socket]\nlisten_backlog = 7\n\
         [http]\nlisten = \"127.0.0.1:2\"\n[log]\nformat = \"json\"\n",
    )
    .unwrap();
    let left = changes(&old, &reloaded(&old, new));
    let left: Vec<_> = left.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(left, ["limits.connections_max"]);
}

#[test]
fn the_error_for_no_source_of_nodes_names_every_way_to_give_one() {
    let error = settings::Input::default().load::<Settings>().unwrap_err();
    assert_eq!(error.kind(), "missing");
    for way in ["--zookeeper", "--dns", "--upstream", "NATS_URL", "--config"] {
        assert!(error.to_string().contains(way), "{error}");
    }
}

#[test]
fn secrets_are_masked_where_settings_are_printed() {
    let given = "[nodes]\nupstream = [\"nats://u:hunter2@h:4222\"]\nzookeeper_auth = \"zk:hunter2\"\n";
    let loaded = settings::of_text::<Settings>("my.toml", given).unwrap();
    let printed = loaded.print();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("zookeeper_auth = \"zk:***\""), "{printed}");
}

#[test]
fn the_compiled_in_file_has_every_key() {
    let settings = Settings::from_toml("").unwrap();
    assert_eq!(settings.listen, ["127.0.0.1:4222", "[::1]:4222"]);
    assert_eq!(settings.session.buffer_bytes, 8 << 20);
    assert_eq!(settings.health.probe_interval_ms.duration().as_secs(), 1);
    assert!(settings.publish.subject.is_empty());
}

#[test]
fn a_listener_has_the_defaults_of_the_sections_and_keeps_its_secrets() {
    let (settings, listener) = (Settings::from_toml("").unwrap(), ListenerSection::default());
    assert_eq!(listener.tls, settings.tls.component);
    assert_eq!(listener.credentials, settings.credentials);
    let given = "[[listener]]\nlisten = [\"unix:/run/x\"]\n[listener.credentials]\nuser = \"u\"\npassword = \"hunter2\"\n\
                 [listener.publish]\nallow = [\"a.>\"]\n";
    let loaded = settings::of_text::<Settings>("my.toml", given).unwrap();
    let printed = loaded.print();
    assert!(
        !printed.contains("hunter2") && !format!("{:?}", loaded.settings).contains("hunter2"),
        "{printed}"
    );
    let again = Settings::from_toml(&printed.replace("***", "hunter2")).unwrap();
    assert_eq!(again.listener[0].publish, loaded.settings.listener[0].publish);
    let old = Settings::from_toml(&given.replace("hunter2", "hunter3")).unwrap();
    let change = &changes(&old, &loaded.settings)[0];
    assert!(!change.to_string().contains("hunter"), "{change}");
}

#[test]
fn errors_of_a_listener_have_its_line_and_name_the_key() {
    let listener = "[[listener]]\nlisten = [\"unix:/x\"]\n";
    for (text, error) in [
        (
            "[[listener]]\n",
            "settings:1: listener: listen must have at least one address",
        ),
        (
            "[[listener]]\nlisten = [\"unix:x\"]\n",
            "settings:1: listener: listen must be host:port, such as \"127.0.0.1:4222\", or \"unix:/path\" of at most 107 bytes, not \"unix:x\"",
        ),
        (
            "[[listener]]\nlisten = [\"h:1\"]\nuids = [1]\n",
            "settings:1: listener: uids and gids are known of peers on Unix sockets only",
        ),
        (
            "[[listener]]\nlisten = [\"h:1\"]\nproxy_protocol_from = [\"lb.example.org\"]\n",
            "settings:1: listener: proxy_protocol_from must have networks (10.0.0.0/8) or addresses, not \"lb.example.org\"",
        ),
        (
            &format!("{listener}proxy_protocol_from = [\"10.0.0.1\"]\n"),
            "settings:1: listener: proxy_protocol_from is for TCP only",
        ),
        (
            &format!("{listener}uid = 1\n"),
            "settings:1: listener: unknown field `uid`, expected one of",
        ),
        (
            &format!("{listener}socket_mode = \"rw\"\n"),
            "settings:1: listener: socket_mode must be an octal number such as \"0660\", not \"rw\"",
        ),
        (
            &format!("{listener}publish = {{ deny = [\"a q\"] }}\n"),
            "settings:1: listener: `a q` names a queue group",
        ),
        (
            &format!("{listener}[listener.tls]\ntimeout_ms = 1\n"),
            "settings:1: listener.tls.timeout_ms must be a whole number from 10 to 60000, not 1",
        ),
        (
            &format!("{listener}credentials = {{ pass = \"x\" }}\n"),
            "settings:1: unknown key `listener.credentials.pass`; its keys are those of [credentials] in deploy/proxy.toml",
        ),
        (
            &format!("{listener}credentials = \"hunter2\"\n"),
            "settings:1: listener: credentials must be a table",
        ),
        (
            &format!("[credentials]\nuser = \"a\"\n{listener}"),
            "settings:2: credentials.user has no effect beside [[listener]]: set it there",
        ),
        (
            &format!("{listener}{listener}"),
            "settings:1: listener address unix:/x conflicts with listen address unix:/x",
        ),
    ] {
        assert_refused(&[(text, error)]);
    }
}

#[test]
fn errors_of_one_value_have_the_line_and_the_allowed_values() {
    assert_refused(&[
        (
            "[session]\nping_max = 0\n",
            "settings:2: session.ping_max must be a whole number from 1 to 100, not 0",
        ),
        (
            "listen = [\"127.0.0.1:1\",\n  \"localhost\"]\n",
            "settings:2: listen must be host:port, such as \"127.0.0.1:4222\", or \"unix:/path\" of at most 107 bytes, not \"localhost\"",
        ),
        (
            "[http]\nlisten = \":8222\"\n",
            "settings:2: http.listen must be host:port, a port of 127.0.0.1, or empty, not \":8222\"",
        ),
        (
            "[http]\nlisten = \"127.0.0.1:+80\"\n",
            "settings:2: http.listen must be host:port, a port of 127.0.0.1, or empty, not \"127.0.0.1:+80\"",
        ),
        (
            "advertise = \"host\"\n",
            "settings:1: advertise must be host:port that components can connect to, or empty, not \"host\"",
        ),
        (
            "advertise = \"0.0.0.0:4222\"\n",
            "settings:1: advertise must be host:port that components can connect to, or empty, not \"0.0.0.0:4222\"",
        ),
        (
            "advertise = \"x:y\"\n",
            "settings:1: advertise must be host:port that components can connect to, or empty, not \"x:y\"",
        ),
        (
            "[publish]\nin_doubt = \"keep\"\n",
            "settings:2: publish.in_doubt must be \"drop\" or \"resend\", not \"keep\"",
        ),
        (
            "[log]\nformat = \"xml\"\n",
            "settings:2: log.format must be \"human\" or \"json\", not \"xml\"",
        ),
        (
            "[log]\nlevel = \"inof\"\n",
            "settings:2: log.level must be error, warn, info, debug, trace, or a filter such as \
             \"info,standin_registry=debug\", not \"inof\"",
        ),
        (
            "[nodes]\nupstream = [\n  \"good:1\",\n  \"http://x\",\n]\n",
            "settings:4: nodes.upstream must be a NATS address",
        ),
        (
            "[nodes]\nzookeeper = \"a:b:c\"\n",
            "settings:2: nodes.zookeeper must be a ZooKeeper host list",
        ),
        (
            "[nodes]\nallowed_nodes = [\"10.0.0.0/33\"]\n",
            "settings:2: nodes.allowed_nodes must be a network (10.0.0.0/8), an IP address, or a host name",
        ),
        (
            "[nodes]\ndns = [\"name:port\"]\n",
            "settings:2: nodes.dns must be ",
        ),
        (
            "[nodes]\nzookeeper_path = \"nodes\"\n",
            "settings:2: nodes.zookeeper_path cannot be \"nodes\": a znode's path starts with '/'",
        ),
        // A password in the wrong place is masked.
        (
            "[nodes]\nzookeeper_auth = \"hunter2\"\n",
            "settings:2: nodes.zookeeper_auth must be user:password, or empty, not \"***\"",
        ),
        (
            "[nodes]\nupstream = \"nats://u:hunter2@h\"\n",
            "settings:2: nodes.upstream must be a list of strings, not \"nats://u:***@h\"",
        ),
    ]);
}

#[test]
fn each_policy_by_subject_is_checked() {
    let settings = Settings::from_toml(
        "[[publish.subject]]\npattern = \"a.>\"\nin_doubt = \"resend\"\n\n[[publish.subject]]\npattern = \"b\"\n\
         in_doubt = \"drop\"\n",
    )
    .unwrap();
    assert_eq!(settings.publish.subject.len(), 2);
    assert_eq!(settings.publish.subject[0].pattern, "a.>");
    assert_refused(&[
        (
            "[[publish.subject]]\npattern = \"a\"\nin_doubt = \"drop\"\n[[publish.subject]]\npattern = \"a..b\"\n\
             in_doubt = \"drop\"\n",
            "settings:4: publish.subject.pattern: `a..b` is not a subject pattern",
        ),
        (
            "[publish]\nsubject = [{ pattern = \"a\" }]\n",
            "settings:2: publish.subject.in_doubt must be \"drop\" or \"resend\", not missing",
        ),
        (
            "[publish]\nsubject = [{ in_doubt = \"drop\" }]\n",
            "settings:2: publish.subject.pattern must be a subject pattern",
        ),
        (
            "[publish]\nsubject = [{ patern = \"a\" }]\n",
            "settings:2: unknown key `publish.subject.patern`; it takes pattern and in_doubt",
        ),
        (
            "[publish]\nsubject = [\"a\"]\n",
            "settings:2: publish.subject must be a list of { pattern",
        ),
    ]);
}

#[test]
fn the_error_of_conflicting_values_is_at_the_value_to_change() {
    assert_refused(&[
        ("listen = []\n", "settings:1: listen must contain at least one"),
        (
            "[choice]\ncooldown_base_ms = 500\ncooldown_max_ms = 400\n",
            "settings:3: choice.cooldown_max_ms (400) is below choice.cooldown_base_ms (500)",
        ),
        // If one of the two has its default, the error is at the other.
        (
            "[choice]\ncooldown_base_ms = 60000\n",
            "settings:2: choice.cooldown_max_ms (10000) is below choice.cooldown_base_ms (60000)",
        ),
        (
            "[publish]\nconfirm_bytes = 16777216\n",
            "settings:2: publish.in_doubt_bytes_max (8388608) is below publish.confirm_bytes (16777216)",
        ),
        (
            "[session]\ncontrol_line_bytes_max = 65536\nbuffer_bytes = 4096\n",
            "settings:3: session.buffer_bytes (4096) is below session.control_line_bytes_max (65536)",
        ),
        (
            "[limits]\nbuffers_total_bytes_max = 1048576\n",
            "settings:2: limits.buffers_total_bytes_max (1048576) is below session.buffer_bytes (8388608)",
        ),
        (
            "[publish]\nin_doubt_bytes_max = 65536\nconfirm_bytes = 65537\n",
            "settings:2: publish.in_doubt_bytes_max (65536) is below publish.confirm_bytes (65537)",
        ),
        (
            "[nodes]\nzookeeper_auth = \"a:b\"\nzookeeper_auth_file = \"f\"\n",
            "settings:2: nodes.zookeeper_auth and nodes.zookeeper_auth_file are both set",
        ),
    ]);
}

#[test]
fn all_errors_of_a_file_are_reported_together() {
    let refused = refused(
        "[choice]\ncooldown_base_ms = 500\ncooldown_max_ms = 400\n[publish]\nsubject = [{ patern = \"a\" }]\n\
         [nodes]\nupstream = [\"127.0.0.1:4222\", \"http://x\"]\nzookeeper = \"a;b\"\n[limits]\n\
         buffers_total_bytes_max = 1048576\n",
    );
    let starts = [
        "settings:3: choice.cooldown_max_ms (400)",
        "settings:5: unknown key `publish.subject.patern`",
        "settings:5: publish.subject.pattern must be",
        "settings:5: publish.subject.in_doubt must be",
        "settings:7: nodes.upstream must be a NATS address",
        "settings:8: nodes.zookeeper must be a ZooKeeper host list",
        "settings:10: limits.buffers_total_bytes_max (1048576)",
    ];
    assert_eq!(refused.lines().count(), starts.len(), "{refused}");
    for (line, start) in refused.lines().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn two_listeners_on_one_address_are_refused() {
    for (listen, http, conflict) in [
        ("\"127.0.0.1:4222\"", "127.0.0.1:4222", true),
        ("\"127.0.0.1:4222\"", "localhost:4222", true),
        ("\"127.0.0.1:4222\"", "4222", true),
        ("\"127.0.0.1:4222\"", "8222", false),
        ("\"127.0.0.1:4222\"", "0.0.0.0:4222", true),
        ("\"0.0.0.0:4222\"", "127.0.0.1:4222", true),
        ("\"[::]:4222\"", "[::1]:4222", true),
        ("\"[::]:4222\"", "127.0.0.1:4222", true),
        ("\"127.0.0.1:4222\"", "[::]:4222", true),
        ("\"0.0.0.0:4222\"", "[::]:4222", true),
        ("\"0.0.0.0:4222\"", "[::1]:4222", false),
        ("\"h:4222\"", "h:4222", true),
        ("\"127.0.0.1:4222\"", "[::1]:4222", false),
        ("\"127.0.0.1:4222\"", "127.0.0.1:8222", false),
        ("\"127.0.0.1:4222\"", "127.0.0.2:4222", false),
        ("\"127.0.0.1:0\"", "127.0.0.1:0", false),
        ("\"127.0.0.1:4222\"", "", false),
    ] {
        let result = Settings::from_toml(&format!("listen = [{listen}]\n[http]\nlisten = \"{http}\"\n"));
        assert_eq!(result.is_err(), conflict, "{listen} {http}: {result:?}");
        if let Err(error) = result {
            assert!(
                error.to_string().starts_with("settings:3: http.listen address "),
                "{error}"
            );
        }
    }
    let error = refused("listen = [\"127.0.0.1:1\", \"[::1]:1\", \"0.0.0.0:1\"]\n");
    assert_eq!(
        error,
        "settings:1: listen address 0.0.0.0:1 conflicts with listen address 127.0.0.1:1; give each a different port"
    );
}

#[test]
fn an_upstream_that_is_the_sidecar_itself_is_refused() {
    for (listen, upstream, own) in [
        ("127.0.0.1:4222", "nats://u:p@localhost:4222", true),
        ("127.0.0.1:4222", "127.0.0.1", true),
        ("localhost:4222", "127.0.0.1:4222", true),
        ("sidecar.test:4222", "nats://sidecar.test", true),
        ("0.0.0.0:4222", "nats://127.0.0.1:4222", true),
        ("0.0.0.0:4222", "nats://[::1]:4222", false),
        ("[::]:4222", "nats://127.0.0.1:4222", true),
        ("10.0.0.1:4222", "10.0.0.1:4222", true),
        ("127.0.0.1:4222", "nats://localhost:4333", false),
        ("127.0.0.1:4222", "10.0.0.1:4222", false),
        ("[::1]:4222", "nats://[::1]:4222/", true),
        ("127.0.0.1:0", "127.0.0.1:4222", false),
    ] {
        let text = format!("listen = [\"{listen}\"]\n[nodes]\nupstream = [\"{upstream}\"]\n");
        let result = Settings::from_toml(&text);
        assert_eq!(result.is_err(), own, "{listen} {upstream}: {result:?}");
        if let Err(error) = result {
            assert!(
                error.to_string().starts_with("settings:3: nodes.upstream has "),
                "{error}"
            );
        }
    }
}

#[test]
fn the_files_of_a_listener_may_be_credentials_of_systemd_and_their_modes_are_checked() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("my.toml"), folder.path().join("token"));
    let text = "[nodes]\nupstream = [\"h:1\"]\n[[listener]]\nlisten = [\"unix:/run/x\"]\n[listener.credentials]\ntoken_file = \"$CREDENTIALS_DIRECTORY/token\"\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(&token, "t").unwrap();
    for (mode, warnings) in [(0o600, 0), (0o644, 1)] {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        let input = Input {
            file: Some(&file),
            environment: vec![(
                "CREDENTIALS_DIRECTORY".to_owned(),
                folder.path().display().to_string(),
            )],
            ..Input::default()
        };
        let loaded = input.load::<Settings>().unwrap();
        assert_eq!(loaded.settings.listener[0].credentials.token_file, token);
        assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
    }
}

#[test]
fn a_text_in_place_of_tables_or_a_boolean_is_masked() {
    for (name, value) in [
        ("STANDIN_LISTENER", "[{credentials={token=\"hunter2\"}}]"),
        ("STANDIN_CREDENTIALS_REPLACE", "hunter2"),
    ] {
        let input = Input {
            environment: vec![(name.to_owned(), value.to_owned())],
            ..Input::default()
        };
        let error = input.load::<Settings>().unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
    }
    for text in [
        "listener = \"hunter2\"",
        "listener = [\"hunter2\"]",
        "listener = [{ credentials = \"hunter2\" }]",
        "listener = [{ publish = \"hunter2\" }]",
    ] {
        let error = Settings::from_toml(text).unwrap_err().to_string();
        assert!(
            error.contains("settings:1") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn a_unix_path_has_the_length_that_the_system_takes() {
    for (length, is_valid) in [(107, true), (108, false)] {
        let path = format!("/{}", "x".repeat(length - 1));
        for text in [
            format!("listen = [\"unix:{path}\"]"),
            format!("[[listener]]\nlisten = [\"unix:{path}\"]"),
        ] {
            assert_eq!(Settings::from_toml(&text).is_ok(), is_valid, "{text}");
        }
    }
}

#[test]
fn each_of_several_listeners_has_its_own_door() {
    let listener = |port| format!("[[listener]]\nlisten = [\"h:{port}\"]\ntls = {{ mode = \"required\" }}\n");
    for (tables, doors) in [
        (listener(1), &["listener.tls"][..]),
        (
            listener(1) + &listener(2),
            &["listener.tls h:1", "listener.tls h:2"],
        ),
    ] {
        let all = Settings::from_toml(&tables).unwrap().tls_doors();
        let names: Vec<_> = all.iter().map(|(door, _)| door.as_str()).collect();
        let names: Vec<_> = names.into_iter().filter(|door| *door != "tls.node").collect();
        assert_eq!(names, doors);
    }
}
