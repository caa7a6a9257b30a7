//! What the command line makes of its words.

use std::path::Path;

use super::*;
use crate::auth::Access;

fn read(words: &[&str]) -> Result<Cli, Said> {
    let program = std::iter::once("standin-broker");
    Cli::read(program.chain(words.iter().copied()).map(OsString::from))
}

fn load(words: &[&str]) -> Result<Settings, String> {
    let cli = read(words).map_err(|said| said.text())?;
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
fn one_dash_and_two_are_the_same() {
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
fn every_flag_sets_the_key_it_stands_for() {
    let words = "-a 127.0.0.1 -p 1 -n name --advertise h:2 -m 3 -P /pid --ports_file_dir /ports -l /log -T -sd /store";
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
fn any_free_port_is_minus_one() {
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
    assert_eq!(settings(&["-a", "localhost"]).addr, "127.0.0.1");
    for port in ["-2", "65536"] {
        let error = load(&["-p", port]).expect_err("no port");
        assert!(
            error.contains("flag --port: port must be") && error.contains(port),
            "{error}"
        );
    }
    let error = load(&["-a", "here"]).expect_err("no address");
    assert_eq!(
        error,
        "flag --addr: addr must be an IP address, such as \"127.0.0.1\", not \"here\""
    );
}

#[test]
fn credentials_are_a_user_with_a_password_or_a_token() {
    let users = Access::Users(vec![("a".into(), "b".into())]);
    assert_eq!(settings(&["--user", "a", "--pass", "b"]).access(), users);
    assert_eq!(settings(&["-user", "a", "-pass", "b"]).access(), users);
    assert_eq!(settings(&["-auth", "t"]).access(), Access::Token("t".into()));
    for words in [
        &["--user", "a"][..],
        &["--pass", "b"],
        &["--auth", "t", "--user", "a", "--pass", "b"],
    ] {
        assert!(load(words).is_err(), "{words:?}");
    }
    for words in [&["--no-such-flag"][..], &["-p", "x"], &["stray"]] {
        let code = read(words).map_or_else(|said| said.exit_code(), |_| EXIT_DONE);
        assert_eq!(code, EXIT_USAGE, "{words:?}");
    }
}

#[test]
fn letters_can_stand_together() {
    assert_eq!(settings(&["-DV"]).log.level, "trace");
    assert_eq!(settings(&["-D"]).log.level, "debug");
    assert_eq!(settings(&["-V"]).log.level, "trace");
    assert_eq!(settings(&["-D", "-DV"]).log.level, "trace");
    assert_eq!(settings(&["-VV"]).log.level, "trace");
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
    for words in ["-v", "--version", "-version", "-h", "--help"] {
        let code = read(&[words]).map_or_else(|said| said.exit_code(), |_| 1);
        assert_eq!(code, EXIT_DONE, "{words}");
    }
}
