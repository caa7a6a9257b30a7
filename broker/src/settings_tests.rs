//! Tests of the settings: their error texts, and that `deploy/broker.toml` has the same ranges as the code.

use std::time::Duration;

use standin_daemon::settings::{changes, faults, reloaded};

use super::*;
use crate::cli::Cli;
use crate::route::hello::Hello;

fn refused(text: &str) -> String {
    Settings::from_toml(text).unwrap_err().to_string()
}

#[test]
fn the_default_file_has_each_key_with_its_range_and_whether_it_needs_a_restart() {
    assert_eq!(faults(&SCHEMA), [""; 0]);
}

#[test]
fn a_reload_keeps_settings_that_need_a_restart() {
    let old = Settings::from_toml("").unwrap();
    let new = Settings::from_toml("port = 1\n[limits]\nping_max = 9\n[process]\nworkers = 3\n").unwrap();
    let changes = changes(&old, &reloaded(&old, new));
    let keys: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["limits.ping_max"]);
}

#[test]
fn the_defaults_are_those_of_nats_server() {
    let settings = Settings::from_toml("").unwrap();
    let limits = settings.limits;
    assert_eq!(limits.max_payload, 1024 * 1024);
    assert_eq!(limits.max_control_line, 4096);
    assert_eq!(limits.max_connections, 64 * 1024);
    assert_eq!(limits.max_subscriptions, 0);
    assert_eq!(limits.max_pending, 64 * 1024 * 1024);
    assert_eq!(limits.write_deadline_ms.duration(), Duration::from_secs(10));
    assert_eq!(limits.ping_interval_ms.duration(), Duration::from_secs(120));
    assert_eq!(limits.ping_max, 2);
    assert_eq!(
        settings.authorization.timeout_ms.duration(),
        Duration::from_secs(2)
    );
}

#[test]
fn invalid_settings_are_refused_with_their_line_and_a_hint() {
    for (text, error) in [
        (
            "port = 0\n",
            "settings:1: port must be 1 to 65535, or -1 for any free port, not 0",
        ),
        (
            "port = 65536\n",
            "settings:1: port must be a whole number from -1 to 65535, not 65536",
        ),
        (
            "addr = \"a b\"\n",
            "settings:1: addr must be an IP address, such as \"127.0.0.1\", or the name of this host, not \"a b\"",
        ),
        (
            "server_name = \"a b\"\n",
            "settings:1: server_name must be a name without spaces and slashes, or empty, not \"a b\"",
        ),
        (
            "[limits]\nmax_payload = 0\n",
            "settings:2: limits.max_payload must be a whole number from 1 to 67108864, not 0",
        ),
        (
            "[limits]\nmax_pending = 65536\n",
            "settings:2: limits.max_pending (65536) is below limits.max_payload (1048576)",
        ),
        (
            "[cluster]\npassword = \"p\"\n",
            "settings:2: cluster.user and cluster.password must be set together; set both or none",
        ),
        (
            "[nodes]\nzookeeper_readers = \"creator\"\n",
            "settings:2: nodes.zookeeper_readers = \"creator\" needs credentials; set nodes.zookeeper_auth_file",
        ),
        (
            "[nodes]\nallowed_nodes = [\"10.0.0.0/33\"]\n",
            "settings:2: nodes.allowed_nodes: \"10.0.0.0/33\" is not a network",
        ),
        (
            "port = 6222\n[nodes]\nzookeeper = \"h:2181\"\n",
            "settings:1: port and the port of cluster.listen are both 6222; give each its own",
        ),
        (
            "[limits]\nmax_paylod = 1\n",
            "settings:2: unknown key `limits.max_paylod`; did you mean `limits.max_payload`?",
        ),
        (
            "[http]\nport = 4222\n",
            "settings:2: http.port and port are both 4222; give each its own",
        ),
        (
            "[cluster]\nlisten = \"http://u:secret@h:6222\"\n",
            "settings:2: cluster.listen must be host:port (port -1: any free one), or empty, not \"http://u:***@h:6222\"",
        ),
        (
            "[cluster]\nlisten = \"0.0.0.0:4222\"\n",
            "settings:2: port and the port of cluster.listen are both 4222; give each its own",
        ),
        (
            "[cluster]\nlisten = \"0.0.0.0:6222\"\nmax_pending = 3145727\n",
            "settings:3: cluster.max_pending must be at least limits.max_payload plus 2 MiB",
        ),
        (
            "[cluster]\nlisten = \"0.0.0.0:6222\"\nroutes = [\n\"http://h:6222\"]\n",
            "settings:4: cluster.routes must be [nats://][user:password@]host:port, not \"http://h:6222\"",
        ),
        (
            "[cluster]\nlisten = \"0.0.0.0:6222\"\nroutes = [\n\"nats://lone@h:6222\"]\n",
            "settings:4: cluster.routes must be [nats://][user:password@]host:port, not",
        ),
        (
            "server_name = \"..\"\n[nodes]\nzookeeper = \"h:2181\"\n",
            "settings:1: server_name cannot be registered",
        ),
        (
            "[authorization]\nuser = \"a\"\npassword = \"$2b$10$x\"\n",
            "settings:3: authorization.password begins like a bcrypt hash, but is not a whole one; a hash has 60 characters",
        ),
        (
            "[authorization]\nusers = [\n{ user = \"a\", password = \"$2y$10$x\" }]\n",
            "settings:3: authorization.users.password begins like a bcrypt hash, but is not a whole one; a hash has 60 characters",
        ),
        (
            "port = 0\n[authorization]\npassword = \"a\"\n[cluster]\nuser = \"u\"\nroutes = [\"h:1\"]\n",
            "settings:1: port must be 1 to 65535, or -1 for any free port, not 0\n\
             settings:3: authorization.password has no user; give authorization.user (--user) too\n\
             settings:5: cluster.user and cluster.password must be set together; set both or none\n\
             settings:6: cluster.routes is set and cluster.listen is not",
        ),
        (
            "[authorization]\ntoken = \"t\"\nusers = [{ user = \"a\", password = \"b\" }]\n",
            "settings:2: authorization.token and users are both set; remove one",
        ),
        (
            "[authorization]\nusers = [\n{ user = \"a\", password = \"b\" },\n{ user = \"a\", password = \"c\" }]\n",
            "settings:2: authorization.users, authorization.user and the users of accounts have \"a\" twice; remove one",
        ),
        (
            "[authorization]\nusers = [\n{ user = \"a\", pasword = \"hunter2\" }]\n",
            "settings:3: authorization.users: unknown field `pasword`, expected one of `user`, `password`, `nkey`, `permissions`",
        ),
        (
            "[authorization]\nusers = [{ password = \"a\" }]\n",
            "settings:2: an entry of authorization.users needs `user` or `nkey`",
        ),
        (
            "[authorization]\nusers = [{ nkey = \"U\" }]\n",
            "settings:2: an entry of authorization.users has an `nkey` that is not the public key of a user",
        ),
        (
            "[authorization]\nusers = [{ user = \"a\", permissions = { publish = { deny = [\"a..b\"] } } }]\n",
            "settings:2: permissions in authorization.users: `a..b` is not a subject pattern",
        ),
        (
            "[authorization]\ndefault_permissions = { publish = { allow = [\"a q\"] } }\n",
            "settings:2: permissions in authorization.default_permissions: `a q` names a queue group",
        ),
        (
            "[authorization]\nno_auth_user = \"a\"\n",
            "settings:2: authorization.no_auth_user is \"a\", which is not the name of a user; add the user",
        ),
        (
            "accounts = [{ name = \"A\", users = [{ user = \"a\" }] }, { name = \"A\" }]\n",
            "settings:1: accounts has \"A\" twice; remove one",
        ),
        (
            "[[accounts]]\nname = \"a.b\"\n",
            "settings:1: an entry of accounts has the name \"a.b\"; a name has no spaces and no dots",
        ),
        (
            "[[accounts]]\nname = \"A\"\nusers = [{ user = \"a\", password = 7 }]\n",
            "settings:1: accounts.users.password must be a string, not \"***\"",
        ),
        (
            "[authorization]\nusers = [{ user = \"a\" }]\n[[accounts]]\nname = \"A\"\nusers = [{ user = \"a\" }]\n",
            "settings:2: authorization.users, authorization.user and the users of accounts have \"a\" twice; remove one",
        ),
    ] {
        let refused = refused(text);
        assert!(refused.starts_with(error), "{refused}");
    }
}

#[test]
fn no_secret_of_a_wrong_type_or_under_a_wrong_key_is_shown() {
    for key in [
        "authorization.password",
        "authorization.token",
        "cluster.password",
    ] {
        for value in ["98765", "9.8765", "[98765]", "{ x = 98765 }", "{ x = '98765' }"] {
            let error = refused(&format!("{key} = {value}\n"));
            assert!(error.contains(key) && !error.contains("8765"), "{error}");
        }
    }
    for text in [
        "advertise = 'nats://u:98765@a:1'",
        "cluster.advertise = 'u:98765@a:1'",
        "addr = 'u:98765@a'",
    ] {
        let error = refused(text);
        assert!(!error.contains("98765"), "{error}");
    }
}

#[test]
fn tls_between_nodes_is_not_switched_on_by_a_url() {
    for text in [
        "cluster.listen = 'tls://127.0.0.1:1'",
        "cluster.routes = ['tls://u:p@a:1']",
        "cluster.routes = ['TLS://a:1']",
    ] {
        let error = refused(text);
        assert!(error.contains("tls.route.mode"), "{error}");
    }
}

#[test]
fn no_secret_is_shown() {
    let given = "[authorization]\nuser = \"a\"\npassword = \"hunter2\"\n\
                 users = [{ user = \"b\", password = \"hunter2\" }]\n";
    let loaded = of_text::<Settings>("my.toml", given).unwrap();
    let printed = loaded.print();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("password = \"***\"  # my.toml:3"), "{printed}");
    assert!(
        printed.contains("users = [{ password = \"***\", user = \"b\" }]"),
        "{printed}"
    );
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let again = refused(&printed);
    assert!(again.contains("put the secret itself there"), "{again}");
    let wrong = refused("[authorization]\nusers = [\"a:hunter2\"]\n");
    assert!(
        !wrong.contains("hunter2") && wrong.contains("a list of { user"),
        "{wrong}"
    );
    let wrong = refused("[authorization]\npassword = 7\ntoken = [\"hunter2\"]\n");
    assert!(!wrong.contains("hunter2"), "{wrong}");
}

#[test]
fn debug_shows_no_secret() {
    let flags =
        "standin-broker --user u --pass hunter2 --cluster nats://c:hunter2@h:1 --routes nats://r:hunter2@h:2";
    let cli = Cli::read(flags.split(' ').map(Into::into)).unwrap();
    let loaded = cli.settings().unwrap();
    let hello = Hello {
        password: "hunter2".into(),
        ..Hello::default()
    };
    let shown = format!("{cli:?} {loaded:?} {:?} {hello:?}", loaded.settings.routes());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn users_come_from_authorization_user_and_authorization_users() {
    let users = |text: &str| Settings::from_toml(text).unwrap().access();
    assert_eq!(users(""), Access::default());
    let two =
        "[authorization]\nuser = \"a\"\npassword = \"b\"\nusers = [{ user = \"c\", password = \"d\" }]\n";
    assert_eq!(users(two), Access::of_passwords([("a", "b"), ("c", "d")]));
    assert_eq!(users("[authorization]\ntoken = \"t\"\n"), Access::of_token("t"));
}

#[test]
fn an_advertised_address_that_cannot_be_reached_is_refused() {
    for advertised in "h h:4222 10.0.0.1 10.0.0.1:1 [::1]:4222 a.b.c:65535".split(' ') {
        for key in ["advertise = ", "[cluster]\nadvertise = "] {
            let text = format!("{key}\"{advertised}\"\n");
            assert!(Settings::from_toml(&text).is_ok(), "{text}");
        }
    }
    let unreachable = "x:y|0.0.0.0|0.0.0.0:1|::|[::]:1|:4222|h:0|h:-1|h:65536|a b:1|nats://h:1|a:b:1|***@h:1";
    for unreachable in unreachable.split('|') {
        for (line, key, section) in [(1, "advertise", ""), (2, "cluster.advertise", "[cluster]\n")] {
            let error = refused(&format!("{section}advertise = \"{unreachable}\"\n"));
            let allowed = "a reachable host:port or host, or empty";
            assert_eq!(
                error,
                format!("settings:{line}: {key} must be {allowed}, not \"{unreachable}\"")
            );
        }
    }
}

#[test]
fn the_default_route_queue_can_hold_the_largest_message() {
    let largest = "[limits]\nmax_payload = 67108864\n[cluster]\nlisten = \"127.0.0.1:-1\"\n";
    assert!(Settings::from_toml(largest).is_ok());
    assert!(
        refused(&format!("{largest}max_pending = 69206015\n"))
            .contains("cluster.max_pending must be at least")
    );
}

#[test]
fn a_text_in_place_of_tables_or_before_an_at_sign_is_masked() {
    for text in [
        "accounts = \"hunter2\"",
        "accounts = [\"hunter2\"]",
        "accounts = [{ name = \"A\", users = \"hunter2\" }]",
        "authorization.users = \"hunter2\"",
        "authorization.users = [\"hunter2\"]",
        "authorization.default_permissions = \"hunter2\"",
        "nodes.allowed_nodes = [\"nats://u:hunter2@x\"]",
        "nodes.zookeeper = \"u:hunter2@h:4\"",
    ] {
        let error = Settings::from_toml(text).unwrap_err().to_string();
        assert!(
            error.contains("settings:1") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
