//! Tests of the command line: the settings and errors that flags result in.

use std::path::Path;

use super::*;
use crate::auth::Access;

fn read(words: &[&str]) -> Result<Cli, CliMessage> {
    let program = std::iter::once("standin-broker");
    Cli::read(program.chain(words.iter().copied()).map(OsString::from))
}

fn load(words: &[&str]) -> Result<Settings, String> {
    let cli = read(words).map_err(|message| message.text())?;
    let input = Input {
        flags: cli.flags(),
        ..Input::default()
    };
    Ok(input.load().map_err(|error| error.to_string())?.settings)
}

fn settings(words: &[&str]) -> Settings {
    load(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn one_dash_and_two_dashes_are_equal() {
    for words in [
        ["-a", "127.0.0.1", "-p", "4333"],
        ["--addr", "127.0.0.1", "--port", "4333"],
        ["-addr", "127.0.0.1", "-port", "4333"],
        ["--a", "127.0.0.1", "--p", "4333"],
        ["-net", "127.0.0.1", "-p", "4333"],
    ] {
        assert_eq!(
            settings(&words).listen().to_string(),
            "127.0.0.1:4333",
            "{words:?}"
        );
    }
    assert_eq!(settings(&["-addr=127.0.0.1", "-p=4333"]).port, 4333);
    assert_eq!(settings(&["-server_name", "one"]).server_name, "one");
    assert!(read(&["-check"]).is_ok_and(|cli| cli.check));
    assert!(read(&["-t"]).is_ok_and(|cli| cli.check));
    assert!(read(&["--print_config"]).is_ok_and(|cli| cli.print_config));
}

#[test]
fn every_flag_sets_its_key() {
    let words = "-a 127.0.0.1 -p 1 -n name --advertise h:2 -m 3 -P /pid --ports_file_dir /ports -l /log -T -sd /store \
                 -log_size_limit 5 -max_traced_msg_len 5 -connect_retries 5 -logtime_utc=true -T=true -no_advertise=false";
    let settings = settings(&words.split(' ').collect::<Vec<_>>());
    assert_eq!((settings.addr.as_str(), settings.port), ("127.0.0.1", 1));
    assert_eq!(
        (settings.server_name.as_str(), settings.advertise.as_str()),
        ("name", "h:2")
    );
    assert_eq!(settings.http.port, 3);
    assert_eq!(settings.process.pid_file, Path::new("/pid"));
    assert_eq!(settings.process.ports_file_dir, Path::new("/ports"));
    assert_eq!(settings.log.file, Path::new("/log"));
}

#[test]
fn port_minus_one_is_any_free_port() {
    assert_eq!(settings(&["-p", "-1"]).listen().port(), 0);
    assert_eq!(settings(&["--port=-1"]).listen().port(), 0);
    assert_eq!(settings(&[]).listen().to_string(), "0.0.0.0:4222");
    assert_eq!(settings(&[]).http_listen(), None);
    assert_eq!(
        settings(&["-m", "-1"])
            .http_listen()
            .map(|address| address.port()),
        Some(0)
    );
    assert_eq!(settings(&["-p", "0"]).port, 4222);
    assert_eq!(settings(&["-a", "localhost"]).addr, "localhost");
    for cluster in ["nats://:6333", "nats://u:p@:6333"] {
        let settings = settings(&["--cluster", cluster]);
        assert_eq!(settings.mesh_listen().to_string(), "0.0.0.0:6333");
    }
    for port in ["-2", "65536"] {
        let error = load(&["-p", port]).expect_err("not a port");
        assert!(
            error.contains("flag --port: port must be") && error.contains(port),
            "{error}"
        );
    }
    let error = load(&["-a", "127.0.0"]).expect_err("not an address");
    assert_eq!(
        error,
        "flag --addr: addr must be an IP address, such as \"127.0.0.1\", or the name of this host, not \"127.0.0\""
    );
}

#[test]
fn credentials_are_a_user_with_a_password_or_a_token() {
    let users = Access::Users(vec![("a".into(), "b".into())]);
    assert_eq!(settings(&["--user", "a", "--pass", "b"]).access(), users);
    assert_eq!(settings(&["-user", "a", "-pass", "b"]).access(), users);
    assert_eq!(settings(&["-auth", "t"]).access(), Access::Token("t".into()));
    let alone = Access::Users(vec![("a".into(), String::new())]);
    assert_eq!(settings(&["--user", "a"]).access(), alone);
    assert_eq!(
        settings(&["--user", "a"]).warnings(),
        ["the user \"a\" has no password: any client that sends this name is admitted"]
    );
    assert_eq!(settings(&["--user", "", "--pass", ""]).access(), Access::Open);
    for words in [
        &["--pass", "b"][..],
        &["--auth", "t", "--user", "a", "--pass", "b"],
    ] {
        assert!(load(words).is_err(), "{words:?}");
    }
    for words in [&["--no-such-flag"][..], &["-p", "x"], &["stray"]] {
        let code = read(words).map_or_else(|message| message.exit_code(), |_| EXIT_DONE);
        assert_eq!(code, EXIT_USAGE, "{words:?}");
    }
}

#[test]
fn switches_set_the_log_level() {
    assert_eq!(settings(&["-DV"]).log.level, "trace");
    assert_eq!(settings(&["-D"]).log.level, "debug");
    assert_eq!(settings(&["-V"]).log.level, "trace");
    assert_eq!(settings(&["-D", "-DV"]).log.level, "trace");
    assert_eq!(settings(&["-VV"]).log.level, "trace");
    assert_eq!(settings(&["-DVV"]).log.level, "trace");
    assert_eq!(settings(&["-D=1", "-D=0"]).log.level, "info");
    assert_eq!(settings(&["-D=0", "-debug=T"]).log.level, "debug");
    assert_eq!(settings(&["-DV=false"]).log.level, "info");
    assert_eq!(settings(&["-D=true", "-V=false", "--trace=F"]).log.level, "debug");
    assert_eq!(settings(&["-p", "1", "-p", "2"]).port, 2);
    assert_eq!(
        settings(&["--user", "u", "--pass", "-x"])
            .authorization
            .password
            .reveal(),
        "-x"
    );
    assert!(load(&["-D=perhaps"]).is_err());
    assert_eq!(settings(&[]).log.level, "info");
    for words in [
        "-v",
        "--version",
        "-version",
        "-v=true",
        "version",
        "VERSION",
        "-h",
        "--help",
        "-help",
        "help",
    ] {
        let code = read(&[words]).map_or_else(|message| message.exit_code(), |_| 1);
        assert_eq!(code, EXIT_DONE, "{words}");
    }
}

/// Returns the error text for words that are refused.
fn error_of(words: &[&str]) -> String {
    let message = read(words).expect_err("refused");
    assert_eq!(message.exit_code(), EXIT_USAGE, "{words:?}");
    message.text()
}

#[test]
fn flags_of_unsupported_features_are_refused_by_name() {
    for (words, refused) in [
        ("-tls", "--tls: TLS is not supported yet"),
        ("--tls -p 4290", "--tls: TLS is not supported yet"),
        ("-tlsverify", "--tlsverify: TLS is not supported yet"),
        ("-tlscert f", "--tlscert: TLS is not supported yet"),
        ("-tlskey=f", "--tlskey: TLS is not supported yet"),
        ("--tlscacert f", "--tlscacert: TLS is not supported yet"),
        ("-help_tls", "--help_tls: TLS is not supported yet"),
        ("-ms 8443", "--https_port (-ms): HTTPS is not supported yet"),
        (
            "-https_port 8443",
            "--https_port (-ms): HTTPS is not supported yet",
        ),
        ("-s", "--syslog (-s): logging to syslog is not supported"),
        (
            "--syslog=true",
            "--syslog (-s): logging to syslog is not supported",
        ),
        (
            "-r udp://h:514",
            "--remote_syslog (-r): logging to syslog is not supported",
        ),
        (
            "-remote_syslog udp://h:514",
            "--remote_syslog (-r): logging to syslog is not supported",
        ),
        ("-profile 6060", "--profile: profiling is not supported"),
        ("-js", "--jetstream (-js): JetStream is not supported"),
        ("-jetstream", "--jetstream (-js): JetStream is not supported"),
    ] {
        let error = error_of(&words.split(' ').collect::<Vec<_>>());
        assert!(
            error.starts_with(&format!("error: flag {refused}")),
            "{words}: {error}"
        );
    }
    let error = error_of(&["-tls", "-s", "-js", "-t"]);
    let errors = error
        .lines()
        .filter(|line| line.starts_with("error: flag "))
        .count();
    assert_eq!(errors, 3, "{error}");
    for words in [
        "-tls=false -tlscert f -tlskey f",
        "-tlsverify=false",
        "-js=false -s=0 -profile 0 -ms 0 -syslog=F",
        "-h=false -v=false -help_tls=false",
        "-T=false -logtime=false -logtime_utc=false -log_size_limit 1000",
    ] {
        assert!(read(&words.split(' ').collect::<Vec<_>>()).is_ok(), "{words}");
    }
    let cli = read(&["-T=false", "-log_size_limit", "1000"]).unwrap();
    assert_eq!(
        cli.unsupported.warnings(&cli.off),
        [
            "flag --logtime (-T) has no effect: log lines always have a timestamp",
            "flag --log_size_limit has no effect: the log file is not rotated by size: use logrotate, and send SIGUSR1 after it renames the file"
        ]
    );
}

#[test]
fn words_that_nats_server_rejects_are_rejected() {
    for words in [
        &["-VD"][..],
        &["-DVVV"],
        &["-tl"],
        &["-ts"],
        &["-p4222"],
        &["-lfile"],
        &["-logtimeutc=true"],
        &["-d"],
        &["-A", "127.0.0.1"],
        &["---p", "1"],
        &["-=x"],
        &["-p"],
        &["-p", "4222x"],
        &["-p", "08"],
        &["-D=perhaps"],
        &["-no_advertise", "false"],
        &["-D", "true"],
        &["stray"],
        &["--", "-p"],
        &["-"],
    ] {
        error_of(words);
    }
    assert!(error_of(&["-D", "true"]).contains("must follow a `=`, as in -D=false"));
    assert!(error_of(&["--zookeper", "h:2181"]).contains("a similar argument exists: '--zookeeper'"));
    assert!(error_of(&["--pass"]).contains("flag --pass needs a value"));
    assert!(
        !error_of(&["-D=hunter2"]).contains("hunter2"),
        "it may be a secret"
    );
    assert_eq!(settings(&["-p", "0x10"]).port, 16);
    assert_eq!(settings(&["-user", "-p", "-pass=--=x"]).authorization.user, "-p");
    assert_eq!(
        settings(&["-pass=--=x", "-user=u"])
            .authorization
            .password
            .reveal(),
        "--=x"
    );
    assert_eq!(settings(&["-c", "", "-a", "", "-l", ""]), settings(&[]));
    assert_eq!(settings(&["-p", "1", "--"]).port, 1);
    assert!(
        read(&["-sl", "reload=/run/x.pid"])
            .is_ok_and(|cli| cli.signal.as_deref() == Some("reload=/run/x.pid"))
    );
    assert!(read(&["--signal=stop"]).is_ok_and(|cli| cli.signal.as_deref() == Some("stop")));
}

#[test]
fn a_bcrypt_hash_is_refused_from_every_source() {
    const HASH: &str = "$2a$11$3kIDaCxw.Glsl1.u5nKa6eUnNDLV5HV9tIuUp7EHhMt6Nm9myW1aS";
    let url = format!("nats://u:{HASH}@127.0.0.1:6222");
    for (words, refused) in [
        (
            &["--user", "u", "--pass", HASH][..],
            "flag --pass: authorization.password is",
        ),
        (&["--auth", HASH], "flag --auth: authorization.token is"),
        (&["--cluster", &url], "flag --cluster: cluster.password is"),
        (
            &["--cluster", "nats://127.0.0.1:6222", "--routes", &url],
            "flag --routes: cluster.routes is",
        ),
    ] {
        let error = load(words).unwrap_err();
        assert!(
            error.starts_with(refused)
                && error.contains("a bcrypt hash; hashed passwords are not supported yet"),
            "{error}"
        );
        assert!(!error.contains("3kIDaCxw"), "{error}");
    }
    let input = Input {
        environment: vec![
            ("STANDIN_AUTHORIZATION_USER".to_owned(), "u".to_owned()),
            ("STANDIN_AUTHORIZATION_PASSWORD".to_owned(), HASH.to_owned()),
        ],
        ..Input::default()
    };
    let error = input.load::<Settings>().unwrap_err().to_string();
    assert!(
        error.starts_with(
            "environment variable STANDIN_AUTHORIZATION_PASSWORD: authorization.password is a bcrypt hash"
        ),
        "{error}"
    );
}

/// All flags of nats-server 2.15: the switches, and the flags with a value. nats-server 2.9 has all of them except `logtime_utc`.
const SWITCHES: &str = "D DV DVV T V VV debug h help help_tls jetstream js logtime logtime_utc no_advertise s syslog t tls tlsverify \
                        trace v version";
const VALUED: &str = "P a addr auth c client_advertise cluster cluster_advertise cluster_listen cluster_name config connect_retries \
                      http_port https_port l log log_size_limit m max_traced_msg_len ms n name net p pass pid port ports_file_dir \
                      profile r remote_syslog routes sd server_name signal sl store_dir tlscacert tlscert tlskey user";

#[test]
fn every_flag_of_nats_server_is_known_as_a_switch_or_with_a_value() {
    for name in SWITCHES.split_whitespace() {
        for dashes in ["-", "--"] {
            assert!(read(&[&format!("{dashes}{name}=false")]).is_ok(), "{name}");
            let error = error_of(&[&format!("{dashes}{name}=perhaps")]);
            assert!(error.contains("takes true or false"), "{name}: {error}");
        }
    }
    for name in VALUED.split_whitespace() {
        for dashes in ["-", "--"] {
            // The value 0 is valid for flags with a number and requests no feature.
            assert!(
                read(&[&format!("{dashes}{name}"), "0"]).is_ok() || is_refused_by_name(name),
                "{name}"
            );
            assert!(
                read(&[&format!("{dashes}{name}=0")]).is_ok() || is_refused_by_name(name),
                "{name}"
            );
            let error = error_of(&[&format!("{dashes}{name}")]);
            assert!(error.contains("needs a value"), "{name}: {error}");
        }
    }
}

/// Returns whether the flag is refused with any value.
fn is_refused_by_name(name: &str) -> bool {
    let error = error_of(&[&format!("-{name}=0")]);
    error.contains("TLS is not supported yet") || error.contains("logging to syslog is not supported")
}
