//! Tests of the command line: the settings that flags set, and the errors.

use super::*;
use crate::auth::Access;

/// Parses a command line. Its words are separated by one space; two spaces enclose an empty word.
fn read(words: &str) -> Result<Cli, CliMessage> {
    let words = words.split(' ').filter(|_| !words.is_empty());
    Cli::read(std::iter::once("standin-broker").chain(words).map(OsString::from))
}

fn load(words: &str) -> Result<Settings, String> {
    let cli = read(words).map_err(|message| message.text())?;
    let input = Input {
        flags: cli.flags(),
        implied: cli.implied(),
        ..Input::default()
    };
    Ok(input.load().map_err(|error| error.to_string())?.settings)
}

fn settings(words: &str) -> Settings {
    load(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Returns the error text for words that are refused.
fn error_of(words: &str) -> String {
    let message = read(words).expect_err("refused");
    assert_eq!(message.exit_code(), EXIT_USAGE, "{words:?}");
    message.text()
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn a_subcommand_is_recognised_only_as_the_first_word() {
    let cli = read("import nats.conf").expect("a command");
    assert!(matches!(cli.subcommand, Some(Subcommand::Import(_))));
    let cli = read("announce --node 10.0.0.1:4222 --check").expect("a command");
    assert!(matches!(cli.subcommand, Some(Subcommand::Announce(_))));
    assert!(error_of("-p 4222 import nats.conf").contains("unrecognized command"));
    assert!(error_of("announce --node 10.0.0.1:4222").contains("--zookeeper"));
    let help = read("--help").expect_err("the help").text();
    assert!(help.contains("announce") && help.contains("import"), "{help}");
}

#[test]
fn one_dash_and_two_dashes_are_equal() {
    for words in [
        "-a 127.0.0.1 -p 4333",
        "--addr 127.0.0.1 --port 4333",
        "-addr 127.0.0.1 -port 4333",
        "--a 127.0.0.1 --p 4333",
        "-net 127.0.0.1 -p 4333",
        "-addr=127.0.0.1 -p=4333",
    ] {
        assert_eq!(settings(words).listen().to_string(), "127.0.0.1:4333", "{words}");
    }
    assert_eq!(settings("-server_name one").server_name, "one");
    let operation = |words| read(words).expect("valid words").operation;
    assert!(operation("-check").check && operation("-t").check);
    assert!(operation("--print_config").print_config);
}

#[test]
fn every_flag_sets_its_key() {
    let words = "-a 127.0.0.1 -p 1 -n name --advertise h:2 -m 3 -P /pid --ports_file_dir /ports -l /log -T -sd /store \
                 -log_size_limit 5 -max_traced_msg_len 5 -connect_retries 5 -logtime_utc=true -T=true -no_advertise=false";
    let settings = settings(words);
    assert_eq!((settings.addr.as_str(), settings.port), ("127.0.0.1", 1));
    assert_eq!((&*settings.server_name, &*settings.advertise), ("name", "h:2"));
    assert_eq!(settings.http.port, 3);
    assert_eq!(settings.process.pid_file, Path::new("/pid"));
    assert_eq!(settings.process.ports_file_dir, Path::new("/ports"));
    assert_eq!(settings.log.file, Path::new("/log"));
}

/// If only a TOML file sets the port of the pages, they are served on a loopback address.
#[test]
fn flags_for_the_pages_use_the_address_for_clients_unless_another_is_set() {
    let listen = |words, file: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.toml");
        std::fs::write(&path, file).unwrap();
        let cli = read(words).unwrap();
        let input = Input {
            file: Some(&path),
            flags: cli.flags(),
            implied: cli.implied(),
            ..Input::default()
        };
        let settings: Settings = input.load().unwrap().settings;
        settings.http_listen().map(|address| address.to_string())
    };
    for (words, file, address) in [
        ("-m 3", "", Some("0.0.0.0:3")),
        ("-m 3 -a 127.0.0.2", "", Some("127.0.0.2:3")),
        ("-m 3", "http.addr = '10.0.0.1'", Some("10.0.0.1:3")),
        ("-m 3", "http.port = 4", Some("0.0.0.0:3")),
        ("", "http.port = 4", Some("127.0.0.1:4")),
        ("-m 0", "http.port = 4", None),
        ("-ms 0", "http.port = 4", Some("127.0.0.1:4")),
        (
            "-a 127.0.0.2",
            "http = { addr = '', port = 4 }",
            Some("127.0.0.2:4"),
        ),
        ("", "", None),
    ] {
        assert_eq!(listen(words, file).as_deref(), address, "{words} {file}");
    }
}

#[test]
fn https_port_serves_the_pages_with_the_certificate_for_clients() {
    for words in ["-ms 3", "--https_port=3", "-m 0 -ms 3"] {
        // The missing certificate is an error, so the flag has switched TLS on.
        let error = load(&format!("{words} --tls=false")).unwrap_err();
        assert_eq!(
            error, "tls.http: cert_file and key_file are not set: a server needs a certificate",
            "{words}"
        );
    }
    let error = load("-ms 3 --tlscert /no/cert --tlskey /no/key").unwrap_err();
    assert!(error.contains("tls.http: cannot read /no/cert"), "{error}");
    let error = error_of("-m 3 -ms 4");
    assert!(
        error.contains("(-m) and --https_port (-ms) are both given"),
        "{error}"
    );
}

#[test]
fn port_minus_one_is_any_free_port() {
    assert_eq!(settings("-p -1").listen().port(), 0);
    assert_eq!(settings("--port=-1").listen().port(), 0);
    assert_eq!(settings("").listen().to_string(), "0.0.0.0:4222");
    assert_eq!(settings("").http_listen(), None);
    assert_eq!(
        settings("-m -1").http_listen().map(|address| address.port()),
        Some(0)
    );
    assert_eq!(settings("-p 0").port, 4222);
    assert_eq!(settings("-a localhost").addr, "localhost");
    for words in ["--cluster nats://:6333", "--cluster nats://u:p@:6333"] {
        assert_eq!(settings(words).mesh_listen().to_string(), "0.0.0.0:6333");
    }
    for (words, error) in [
        (
            "-p -2",
            "flag --port: port must be a whole number from -1 to 65535, not -2",
        ),
        (
            "-p 65536",
            "flag --port: port must be a whole number from -1 to 65535, not 65536",
        ),
        (
            "-a 127.0.0",
            "flag --addr: addr must be an IP address, such as \"127.0.0.1\", or the name of this host, not \"127.0.0\"",
        ),
    ] {
        assert_eq!(load(words).expect_err("not an address"), error);
    }
}

#[test]
fn credentials_are_a_user_with_a_password_or_a_token() {
    let user = |password: &str| Access::of_passwords([("a", password)]);
    for (words, access) in [
        ("--user a --pass b", user("b")),
        ("-user a -pass b", user("b")),
        ("-auth t", Access::of_token("t")),
        ("--user a", user("")),
        ("--user  --pass ", Access::default()),
    ] {
        assert_eq!(settings(words).access(), access, "{words}");
    }
    assert_eq!(
        settings("--user a").warnings(),
        ["the user \"a\" has no password: any client that sends this name is admitted"]
    );
    for words in ["--pass b", "--auth t --user a --pass b"] {
        assert!(load(words).is_err(), "{words}");
    }
    for words in ["--no-such-flag", "-p x", "stray"] {
        error_of(words);
    }
}

#[test]
fn switches_set_the_log_level() {
    for (words, level) in [
        ("", "info"),
        ("-DV", "trace"),
        ("-D", "debug"),
        ("-V", "trace"),
        ("-D -DV", "trace"),
        ("-VV", "trace"),
        ("-DVV", "trace"),
        ("-D=1 -D=0", "info"),
        ("-D=0 -debug=T", "debug"),
        ("-DV=false", "info"),
        ("-D=true -V=false --trace=F", "debug"),
    ] {
        assert_eq!(settings(words).log.level, level, "{words}");
    }
    assert_eq!(settings("-p 1 -p 2").port, 2);
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
        let code = read(words).map_or_else(|message| message.exit_code(), |_| 1);
        assert_eq!(code, EXIT_DONE, "{words}");
    }
}

#[test]
fn flags_of_unsupported_features_are_refused_by_name() {
    for (words, refused) in [
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
        let error = error_of(words);
        let refused = format!("error: flag {refused}");
        assert!(error.starts_with(&refused), "{words}: {error}");
    }
    let error = error_of("-profile 1 -s -js -t");
    assert_eq!(error.matches("error: flag ").count(), 3, "{error}");
    for words in [
        "-tls=false -tlscert f -tlskey f",
        "-tlsverify=false",
        "-js=false -s=0 -profile 0 -ms 0 -syslog=F",
        "-h=false -v=false -help_tls=false",
        "-T=false -logtime=false -logtime_utc=false -log_size_limit 1000",
    ] {
        assert!(read(words).is_ok(), "{words}");
    }
    let cli = read("-T=false -log_size_limit 1000").unwrap();
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
    for (words, error) in [
        ("-VD", ""),
        ("-DVVV", ""),
        ("-tl", ""),
        ("-ts", ""),
        ("-p4222", ""),
        ("-lfile", ""),
        ("-logtimeutc=true", ""),
        ("-d", ""),
        ("-A 127.0.0.1", ""),
        ("---p 1", ""),
        ("-=x", ""),
        ("-p", ""),
        ("-p 4222x", ""),
        ("-p 08", ""),
        ("-no_advertise false", ""),
        ("-D true", "must follow a `=`, as in -D=false"),
        ("stray", ""),
        ("-- -p", ""),
        ("-", ""),
        ("--zookeper h:2181", "a similar argument exists: '--zookeeper'"),
        ("--pass", "flag --pass needs a value"),
        // The value may be a secret.
        ("-D=hunter2", "flag -D takes true or false, not this value"),
    ] {
        let found = error_of(words);
        assert!(
            found.contains(error) && !found.contains("hunter2"),
            "{words}: {found}"
        );
    }
}

#[test]
fn values_are_parsed_as_nats_server_parses_them() {
    assert_eq!(settings("-p 0x10").port, 16);
    assert_eq!(settings("-p 1 --").port, 1);
    assert_eq!(settings("-c  -a  -l "), settings(""));
    assert_eq!(settings("-user -p -pass=--=x").authorization.user, "-p");
    for (words, password) in [("-pass=--=x -user=u", "--=x"), ("--user u --pass -x", "-x")] {
        assert_eq!(settings(words).authorization.password.reveal(), password);
    }
    for (words, signal) in [
        ("-sl reload=/run/x.pid", "reload=/run/x.pid"),
        ("--signal=stop", "stop"),
    ] {
        let cli = read(words).expect("valid words");
        assert_eq!(cli.operation.signal.as_deref(), Some(signal));
    }
}

#[test]
fn a_bcrypt_hash_is_taken_for_users_and_refused_for_routes() {
    const HASH: &str = "$2a$11$3kIDaCxw.Glsl1.u5nKa6eUnNDLV5HV9tIuUp7EHhMt6Nm9myW1aS";
    for words in ["--user u --pass @", "--auth @"] {
        assert!(settings(&words.replacen('@', HASH, 1)).access().is_required());
    }
    for (words, refused) in [
        ("--cluster URL", "flag --cluster: cluster.password is"),
        (
            "--cluster nats://127.0.0.1:6222 --routes URL",
            "flag --routes: cluster.routes is",
        ),
    ] {
        let words = words
            .replace("URL", "nats://u:@@127.0.0.1:6222")
            .replacen('@', HASH, 1);
        let error = load(&words).unwrap_err();
        let refused = format!("{refused} a bcrypt hash, but nodes send it to each other");
        assert!(
            error.starts_with(&refused) && !error.contains("3kIDaCxw"),
            "{error}"
        );
    }
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
        for flag in [format!("-{name}"), format!("--{name}")] {
            assert!(read(&format!("{flag}=false")).is_ok(), "{flag}");
            let error = error_of(&format!("{flag}=perhaps"));
            assert!(error.contains("takes true or false"), "{flag}: {error}");
        }
    }
    for name in VALUED.split_whitespace() {
        for flag in [format!("-{name}"), format!("--{name}")] {
            // The value 0 is valid for flags with a number and requests no feature. `--remote_syslog` is refused with any value.
            for words in [format!("{flag} 0"), format!("{flag}=0")] {
                let refused = read(&words).map_or_else(|message| message.text(), |_| String::new());
                let features = ["logging to syslog is not supported"];
                let is_by_name = features.iter().any(|feature| refused.contains(feature));
                assert!(refused.is_empty() || is_by_name, "{words}: {refused}");
            }
            let error = error_of(&flag);
            assert!(error.contains("needs a value"), "{flag}: {error}");
        }
    }
}
