//! Each layer of settings overrides the one before, and each error names the place of the value.

use std::fs;

use super::super::sample::Sample;
use super::*;

const SOURCE: &str = "[nodes]\nupstream = [\"10.0.0.1\"]\n";

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn loaded(pairs: &[(&str, &str)], flags: Vec<Flag>) -> Result<Loaded<Sample>, SettingsError> {
    let input = Input {
        file: None,
        environment: variables(pairs),
        flags,
        implied: Vec::new(),
    };
    input.load()
}

fn with_environment(pairs: &[(&str, &str)]) -> Result<Loaded<Sample>, SettingsError> {
    loaded(&[&[("NATS_URL", "10.0.0.1")], pairs].concat(), vec![])
}

fn flag(key: &'static str, flag: &'static str, value: Value) -> Vec<Flag> {
    vec![Flag { key, flag, value }]
}

fn error_of(text: &str) -> String {
    of_text::<Sample>("settings", text).unwrap_err().to_string()
}

#[test]
fn the_compiled_in_file_has_a_valid_value_for_each_key_of_the_struct() {
    let settings = of_text::<Sample>("settings", "").unwrap().settings;
    assert_eq!(settings.listen, ["127.0.0.1:4222"]);
    assert_eq!(settings.session.buffer_bytes, 8 << 20);
    assert_eq!(settings.session.ping_interval_secs.duration().as_secs(), 120);
    assert_eq!(settings.publish["subject"], Value::Array(vec![]));
}

#[test]
fn each_layer_overrides_the_one_before() {
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
        flags: flag("http.listen", "--http", Value::from("127.0.0.1:5")),
        implied: Vec::new(),
    };
    let loaded = input.load::<Sample>().unwrap();
    assert_eq!(loaded.settings.session.ping_max, 3);
    assert_eq!(loaded.settings.session.ping_interval_secs.0, 4);
    assert_eq!(loaded.settings.http["listen"].as_str(), Some("127.0.0.1:5"));
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
fn the_error_of_an_unknown_key_names_the_line_and_a_similar_key() {
    for (text, error) in [
        (
            "[session]\n\nbufer_bytes = 1\n",
            "settings:3: unknown key `session.bufer_bytes`; did you mean `session.buffer_bytes`?",
        ),
        (
            "[session]\nprobe_interval_ms = 1\n",
            "settings:2: unknown key `session.probe_interval_ms`; it belongs in [health]",
        ),
        (
            "[log]\nlisten = []\n",
            "settings:2: unknown key `log.listen`; it belongs above the first section",
        ),
        (
            "[http]\nlevl = 1\n",
            "settings:2: unknown key `http.levl`; the keys are listed in deploy/sample.toml",
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
        assert_eq!(error_of(text), error);
    }
}

#[test]
fn a_section_is_not_accepted_as_a_key_nor_a_key_as_a_section() {
    assert!(error_of("session = 3\n").starts_with("settings:1: unknown key `session`"));
    assert!(error_of("[listen]\n").starts_with("settings:1: unknown key `[listen]`"));
    assert!(error_of("[[session]]\nping_max = 1\n").starts_with("settings:1: unknown key `session`"));
}

#[test]
fn nats_url_sets_upstream_and_the_programs_own_variable_and_flag_override_it() {
    let upstream = |pairs: &[(&str, &str)], flags| loaded(pairs, flags).unwrap().settings.nodes.upstream;
    let two = ("NATS_URL", "nats://a:1, nats://b:2");
    assert_eq!(upstream(&[two], vec![]), ["nats://a:1", "nats://b:2"]);
    let unset = with_environment(&[("NATS_URL", "")]).unwrap_err();
    assert_eq!(unset.kind(), "missing", "an empty variable counts as not set");
    let own = ("STANDIN_NODES_UPSTREAM", "c:3");
    assert_eq!(upstream(&[two, own], vec![]), ["c:3"]);
    let given = flag("nodes.upstream", "--upstream", check::list("d:4"));
    assert_eq!(upstream(&[two], given), ["d:4"]);
    let secret = with_environment(&[("NATS_URL", "http://u:hunter2@a")]);
    let error = secret.unwrap_err().to_string();
    assert!(
        error.starts_with("environment variable NATS_URL: ") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn the_error_of_an_invalid_variable_names_the_variable() {
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
            "STANDIN_PUBLISH_SUBJECT",
            "a.>",
            "environment variable STANDIN_PUBLISH_SUBJECT: publish.subject must be a list of { pattern } in a settings \
             file, not ***",
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
}

#[test]
fn variables_of_other_programs_do_not_prevent_the_start() {
    let loaded = with_environment(&[
        ("STANDIN_SERVICE_HOST", "10.0.0.1"),
        ("STANDIN_PORT_4222_TCP_ADDR", "10.0.0.1"),
        ("STANDIN_NODES_PORT", "tcp://10.0.0.1:4222"),
        ("STANDIN_PORT", "tcp://10.0.0.1:4222"),
        ("STANDIN_SOMETHING_OF_YOURS", "1"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(
        loaded.warnings,
        ["environment variable STANDIN_SOMETHING_OF_YOURS is not a setting of this program; ignored"]
    );
}

#[test]
fn a_missing_mandatory_value_prevents_the_start() {
    let error = loaded(&[], vec![]).unwrap_err();
    assert_eq!(error.kind(), "missing");
    assert_eq!(error.to_string(), "no nodes: give NATS_URL");
    let embedded = of_text::<Sample>("settings", "");
    assert!(embedded.is_ok(), "an embedded program may start without nodes");
}

#[test]
fn all_errors_are_reported_together_in_the_order_of_the_layers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.toml");
    let text = "listen = [\"127.0.0.1:1\", 7, 8]\nlisen = 1\n[sesion]\nping_max = 0\n[session]\nping_max = 0\n[log]\n\
                format = \"xml\"\nlevel = debug\n";
    fs::write(&path, text).unwrap();
    let input = Input {
        file: Some(&path),
        environment: variables(&[("STANDIN_NODES_GOSSIP", "maybe"), ("NATS_URL", "http://h")]),
        flags: flag("http.listen", "--http", Value::Integer(1)),
        implied: Vec::new(),
    };
    let error = input.load::<Sample>().unwrap_err();
    assert_eq!(error.kind(), "several");
    let shown = error.to_string();
    let name = path.display().to_string();
    let starts = [
        "FILE:1: listen must be a list of strings, not 7",
        "FILE:1: listen must be a list of strings, not 8",
        "FILE:2: unknown key `lisen`",
        "FILE:3: unknown key `[sesion]`",
        "FILE:6: session.ping_max must be",
        "FILE:8: log.format must be",
        "FILE:9: not TOML: ",
        "environment variable STANDIN_NODES_GOSSIP: nodes.gossip must be true or false",
        "environment variable NATS_URL: nodes.upstream must be nats://",
        "flag --http: http.listen must be a string",
    ];
    assert_eq!(shown.lines().count(), starts.len(), "{shown}");
    for (line, start) in shown.lines().zip(starts) {
        assert!(line.starts_with(&start.replace("FILE", &name)), "{line}");
    }
}

#[test]
fn errors_beyond_the_maximum_number_of_lines_are_counted() {
    let text: String = (0..101).map(|i| format!("unknown{i} = 1\n")).collect();
    assert_eq!(error_of(&text).lines().last(), Some("and 1 more"));
}

#[test]
fn a_conflict_is_reported_with_other_errors_unless_one_of_its_values_is_invalid() {
    let shown = error_of("[session]\nping_max = 50\n[log]\nformat = \"xml\"\n");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(
        lines[0].starts_with("settings:2: session.ping_interval_secs (120) "),
        "the error names the line of the key that the file sets: {shown}"
    );
    let shown = error_of("[session]\nping_max = 50\nping_interval_secs = true\n");
    assert_eq!(
        shown,
        "settings:3: session.ping_interval_secs must be a whole number, not true"
    );
}

#[test]
fn a_flag_may_hold_a_comma_separated_list_like_a_variable() {
    let upstream = |texts: &[&str]| {
        let texts = texts.iter().map(|text| Value::from(*text)).collect();
        loaded(&[], flag("nodes.upstream", "--upstream", Value::Array(texts)))
    };
    let given = upstream(&["nats://a,nats://b", "c, d"]).unwrap();
    assert_eq!(given.settings.nodes.upstream, ["nats://a", "nats://b", "c", "d"]);
    let error = upstream(&[""]).unwrap_err().to_string();
    assert!(
        error.starts_with("flag --upstream: nodes.upstream must be"),
        "{error}"
    );
}

#[test]
fn the_error_of_a_missing_settings_file_names_its_path() {
    let input = Input {
        file: Some(Path::new("no/such/sample.toml")),
        ..Input::default()
    };
    let error = input.load::<Sample>().unwrap_err();
    assert_eq!(error.kind(), "unreadable");
    let start = "cannot read the settings file no/such/sample.toml: ";
    assert!(error.to_string().starts_with(start), "{error}");
}
