//! Each layer over the one below it, and each slip with the place where it was made.

use std::fs;

use super::super::sample::Sample;
use super::*;

const SOURCE: &str = "[nodes]\nupstream = [\"10.0.0.1\"]\n";

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn with_environment(pairs: &[(&str, &str)]) -> Result<Loaded<Sample>, SettingsError> {
    let mut environment = variables(&[("NATS_URL", "10.0.0.1")]);
    environment.extend(variables(pairs));
    Input {
        environment,
        ..Input::default()
    }
    .load()
}

fn refused(text: &str) -> String {
    of_text::<Sample>("settings", text).unwrap_err().to_string()
}

#[test]
fn the_compiled_in_file_holds_every_key_of_the_struct_with_a_value_that_is_allowed() {
    let settings = of_text::<Sample>("settings", "").unwrap().settings;
    assert_eq!(settings.listen, ["127.0.0.1:4222"]);
    assert_eq!(settings.session.buffer_bytes, 8 << 20);
    assert_eq!(settings.health.probe_interval_ms.duration().as_secs(), 1);
    assert!(settings.publish.subject.is_empty());
}

#[test]
fn each_layer_lies_over_the_one_below() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.toml");
    fs::write(
        &path,
        format!(
            "{SOURCE}[session]\nping_max = 3\nping_interval_secs = 3\n[http]\nlisten = \"127.0.0.1:3\"\n"
        ),
    )
    .unwrap();
    let input = Input {
        file: Some(&path),
        environment: variables(&[
            ("STANDIN_SESSION_PING_INTERVAL_SECS", "4"),
            ("STANDIN_HTTP_LISTEN", "127.0.0.1:4"),
            ("STANDIN_NODES_GOSSIP", "false"),
        ]),
        flags: vec![Flag {
            key: "http.listen",
            flag: "--http",
            value: Value::String("127.0.0.1:5".to_owned()),
        }],
    };
    let loaded = input.load::<Sample>().unwrap();
    assert_eq!(loaded.settings.session.ping_max, 3);
    assert_eq!(loaded.settings.session.ping_interval_secs.0, 4);
    assert_eq!(loaded.settings.http.listen, "127.0.0.1:5");
    assert!(!loaded.settings.nodes.gossip);
    let printed = loaded.print();
    for line in [
        format!("ping_max = 3  # {}:4", path.display()),
        "ping_interval_secs = 4  # environment variable STANDIN_SESSION_PING_INTERVAL_SECS".to_owned(),
        "listen = \"127.0.0.1:5\"  # flag --http".to_owned(),
        "ping_max = 3".to_owned(),
    ] {
        assert!(printed.contains(&line), "{line} is missing in\n{printed}");
    }
}

#[test]
fn unknown_keys_are_told_with_file_line_and_the_likely_name() {
    for (text, error) in [
        (
            "[session]\n\nbufer_bytes = 1\n",
            "settings:3: unknown key `bufer_bytes` in [session]; did you mean `buffer_bytes`?",
        ),
        (
            "[session]\nprobe_interval_ms = 1\n",
            "settings:2: unknown key `probe_interval_ms` in [session]; it belongs in [health]",
        ),
        (
            "[log]\nlisten = []\n",
            "settings:2: unknown key `listen` in [log]; it belongs above the first section",
        ),
        (
            "[http]\nlevl = 1\n",
            "settings:2: unknown key `levl` in [http]; the keys are listed in deploy/sample.toml",
        ),
        (
            "lisen = []\n",
            "settings:1: unknown key `lisen`; did you mean `listen`?",
        ),
        (
            "[sesion]\n",
            "settings:1: unknown key `[sesion]`; did you mean `session`?",
        ),
        (
            "[tls]\nx = 1\n",
            "settings:1: unknown key `[tls]`; the sections are listed in deploy/sample.toml",
        ),
    ] {
        assert_eq!(refused(text), error);
    }
}

#[test]
fn a_section_and_a_key_do_not_stand_for_each_other() {
    assert!(refused("session = 3\n").starts_with("settings:1: unknown key `session`"));
    assert!(refused("[listen]\n").starts_with("settings:1: unknown key `[listen]`"));
    assert!(refused("[[session]]\nping_max = 1\n").starts_with("settings:1: unknown key `session`"));
}

#[test]
fn nats_url_stands_for_upstream_below_the_program_s_own_variable_and_the_flag() {
    let shown =
        |pairs: &[(&str, &str)]| format!("{:?}", with_environment(pairs).unwrap().settings.nodes.upstream);
    assert_eq!(
        shown(&[("NATS_URL", "nats://a:1, nats://b:2")]),
        "[\"nats://a:1\", \"nats://b:2\"]"
    );
    let unset = with_environment(&[("NATS_URL", "")]).unwrap_err();
    assert_eq!(unset.kind(), "missing", "empty is as not set");
    assert_eq!(
        shown(&[("NATS_URL", "a:1"), ("STANDIN_NODES_UPSTREAM", "c:3")]),
        "[\"c:3\"]"
    );
    let flag = Flag {
        key: "nodes.upstream",
        flag: "--upstream",
        value: check::list("d:4"),
    };
    let input = Input {
        environment: variables(&[("NATS_URL", "a:1")]),
        flags: vec![flag],
        ..Input::default()
    };
    assert_eq!(
        format!("{:?}", input.load::<Sample>().unwrap().settings.nodes.upstream),
        "[\"d:4\"]"
    );
    let error = with_environment(&[("NATS_URL", "http://u:hunter2@a")])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("environment variable NATS_URL: ") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn variables_are_told_by_name_when_they_are_wrong() {
    for (name, value, error) in [
        (
            "STANDIN_SESSION_PING_MAX",
            "many",
            "environment variable STANDIN_SESSION_PING_MAX: session.ping_max must be a whole number from 1 to 100, \
             not \"many\"",
        ),
        (
            "STANDIN_NODES_GOSSIP",
            "maybe",
            "environment variable STANDIN_NODES_GOSSIP: nodes.gossip must be true or false, not \"maybe\"",
        ),
        (
            "STANDIN_SESSION_PINGS_MAX",
            "1",
            "environment variable STANDIN_SESSION_PINGS_MAX: unknown key `session_pings_max`; did you mean \
             `STANDIN_SESSION_PING_MAX`?",
        ),
        (
            "STANDIN_HTTP_COLOUR",
            "red",
            "environment variable STANDIN_HTTP_COLOUR: unknown key `http_colour`; the variables are \
             STANDIN_<SECTION>_<KEY> of deploy/sample.toml",
        ),
    ] {
        assert_eq!(with_environment(&[(name, value)]).unwrap_err().to_string(), error);
    }
    let error = with_environment(&[("STANDIN_PUBLISH_SUBJECT", "a.>")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("in a settings file"), "{error}");
}

#[test]
fn variables_of_others_do_not_keep_the_sidecar_from_starting() {
    let loaded = with_environment(&[
        ("STANDIN_SERVICE_HOST", "10.0.0.1"),
        ("STANDIN_PORT_4222_TCP_ADDR", "10.0.0.1"),
        ("STANDIN_NODES_PORT", "tcp://10.0.0.1:4222"),
        ("STANDIN_SOMETHING_OF_YOURS", "1"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(
        loaded.warnings,
        ["environment variable STANDIN_SOMETHING_OF_YOURS is no setting of this program; ignored"]
    );
}

#[test]
fn a_program_that_starts_is_told_what_it_cannot_do_without() {
    let error = Input::default().load::<Sample>().unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        ("missing", "no nodes: give NATS_URL")
    );
    assert!(
        of_text::<Sample>("settings", "").is_ok(),
        "one that is embedded is not"
    );
}

#[test]
fn a_settings_file_that_is_missing_is_named() {
    let path = Path::new("no/such/sample.toml");
    let error = Input {
        file: Some(path),
        ..Input::default()
    }
    .load::<Sample>()
    .unwrap_err();
    assert_eq!(error.kind(), "unreadable");
    assert!(
        error
            .to_string()
            .starts_with("cannot read the settings file no/such/sample.toml: "),
        "{error}"
    );
}
