//! Tests of the syntax: words, quotes, variables, included files.

use std::fs;

use proptest::prelude::*;
use standin_daemon::settings::Input;

use super::load;
use crate::settings::Settings;

/// Returns the password of the user `u` in a file.
pub(super) fn password(text: &str) -> Result<String, String> {
    let settings = load("x.conf", text)?;
    assert_eq!(settings.authorization.user, "u");
    Ok(settings.authorization.password.reveal().to_owned())
}

#[test]
fn a_string_without_quotes_is_taken_as_it_is_written() {
    let words = "5g 7MB 8KiB 007 12 -5 3.14 1e5 0x10 1.2.3.4 10s yes off 2024-01-01T00:00:00Z abc#def abc//def a:b a=b 5:6 a(b \
                 5kx p@ss a$b пароль";
    for word in words.split(' ') {
        let text = format!("authorization {{\n user: u\n password: {word}\n}}\n");
        assert_eq!(password(&text).as_deref(), Ok(word));
        let text = format!("P = {word}\nauthorization {{ user: u, password: $P }}\n");
        assert_eq!(password(&text).as_deref(), Ok(word));
    }
    let settings = load("x.conf", "server_name: 007\nmax_payload: 8KiB\nmax_pending: 2M\n").unwrap();
    assert_eq!(settings.server_name, "007");
    assert_eq!(
        (settings.limits.max_payload, settings.limits.max_pending),
        (8192, 2_000_000)
    );
}

#[test]
fn quotes_escapes_and_blocks_are_parsed_as_in_nats_server() {
    for (value, text) in [
        (r#""\x41\x42c""#, "ABc"),
        (r#""\xc3\xa9""#, "é"),
        (r#""a\tb\\\"""#, "a\tb\\\""),
        (r"\x41b", "Ab"),
        ("5'", "5"),
        ("a\\x41'", "aA"),
        (r"'a\nb'", r"a\nb"),
        ("'a\nb'", "a\nb"),
        ("\"a\nb\"", "a\nb"),
        ("\"$P\"", "$P"),
        ("(\nabc\n)\n", "\nabc\n"),
        ("(ab\n(c)\n)\n", "ab\n(c)\n"),
    ] {
        let file = format!("authorization {{\n user: u\n password: {value}\n}}\n");
        assert_eq!(password(&file).as_deref(), Ok(text), "{value}");
    }
}

#[test]
fn keys_and_values_may_be_separated_as_in_nats_server() {
    for text in [
        "{\n\"authorization\": {\"user\": \"u\", \"password\": \"x\"},\n\"port\": 4333\n}\n",
        "AUTHORIZATION {USER u; Password: x;};\n",
        "authorization\n{user u\npassword\nx}\n",
        "authorization {user:\n u\npassword: x}\n",
        "authorization {\r\n user: u # c\r\n password: x // d\r\n} # e\r\n",
        "authorization { user: u, password: y }\nauthorization { user: u, password: x }\n",
        "P: x\nQ: $P\nauthorization { user: u, password: $Q }\n",
        "authorization { user: u, P: x, password: $P }\n",
    ] {
        assert_eq!(password(text).as_deref(), Ok("x"), "{text}");
    }
    let text = "authorization { token: t }\nauthorization { user: u, password: x }\n";
    assert_eq!(password(text).as_deref(), Ok("x"), "the last block counts");
    let level = |text: &str| load("x.conf", text).unwrap().log.level;
    assert_eq!(level("trace: true\ndebug: true\n"), "trace");
    assert_eq!(level("debug: true\ntrace: false\n"), "debug");
    assert_eq!(level("debug: off\n"), "info");
    let clustered = |text: &str| load("x.conf", text).unwrap().is_clustered();
    assert!(!clustered("cluster {}\n") && !clustered("cluster { name: c, host: 127.0.0.1 }\n"));
    assert!(clustered("cluster { name: c, port: -1 }\n"));
    let defaults = "port: 0\nmax_payload: 0\nmax_pending: 0\nmax_control_line: 0\nping_interval: 0\nwrite_deadline: \"0s\"\n";
    assert_eq!(load("x.conf", defaults), Ok(Settings::from_toml("").unwrap()));
    let time = load("x.conf", "ping_interval: \"1m30.5s\"\nwrite_deadline: 1.5\n").unwrap();
    let limits = time.limits;
    assert_eq!(
        (limits.ping_interval_ms.0, limits.write_deadline_ms.0),
        (90_500, 1500)
    );
}

#[test]
fn included_files_are_relative_to_the_including_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let load = |text: &str| {
        write("x.conf", text);
        let path = folder.path().join("x.conf");
        let input = Input {
            file: Some(&path),
            ..Input::default()
        };
        let shown = format!("{}/", folder.path().display());
        let loaded = input.load::<Settings>();
        let loaded = loaded.map_err(|error| error.to_string().replace(&shown, ""))?;
        Ok::<_, String>((
            loaded.settings.authorization.password.reveal().to_owned(),
            loaded.print(),
        ))
    };
    write("sub/a.conf", "include 'b.conf'\n");
    write("sub/b.conf", "P: x\nauthorization { user: u, password: $P }\n");
    write("sub/users", "user: u\npassword: x\n");
    write("variables.conf", "P: x\n");
    write("bad.conf", "port: 1\n\nprt: 2\nmax_payload: 0x\n");
    let absolute = format!("include \"{}/sub/b.conf\"\n", folder.path().display());
    for (text, place) in [
        ("include sub/a.conf\n", "sub/b.conf:2"),
        ("INCLUDE ./sub/a.conf\nport: 4333\n", "sub/b.conf:2"),
        ("authorization {\n include sub/users;\n}\n", "sub/users:2"),
        ("authorization { include sub/users }\n", "sub/users:2"),
        (
            "include variables.conf\nauthorization { user: u, password: $P }\n",
            "x.conf:2",
        ),
        (&absolute, "sub/b.conf:2"),
    ] {
        let (password, printed) = load(text).unwrap();
        assert_eq!(password, "x", "{text}");
        let of_password = |line: &&str| line.starts_with("password") && line.contains(place);
        assert!(printed.lines().any(|line| of_password(&line)), "{printed}");
    }
    assert_eq!(
        load("max_conn: x\ninclude bad.conf\n").unwrap_err(),
        "x.conf:1: max_conn must be a whole number, not a string\n\
         bad.conf:3: unknown key `prt` (unknown in nats-server too)\n\
         bad.conf:4: max_payload must be a whole number, not a string"
    );
    for (text, error) in [
        (
            "\ninclude no.conf\n",
            "x.conf:2: cannot read the included file no.conf: No such file",
        ),
        (
            "include x.conf\n",
            "x.conf:1: x.conf: includes are nested too deeply (limit 32); does it include itself?",
        ),
        // If parsing did not end at the first nesting error, 2^32 files would be read.
        (
            "include x.conf\ninclude x.conf\n",
            "x.conf:1: x.conf: includes are nested too deeply (limit 32); does it include itself?",
        ),
        ("include \n", "x.conf:1: include has no file name"),
        (
            "P: x\ninclude c.conf\n",
            "c.conf:1: the variable $P is neither a key above",
        ),
    ] {
        write("c.conf", "authorization { user: u, password: $P }\n");
        let refused = load(text).unwrap_err();
        assert!(refused.starts_with(error), "{text:?}: {refused}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in r#"[a$'"\\{}\[\](),;:=#/ \n\r\t5.\-kibT\u{e9}x]{0,80}"#) {
        let _ = super::super::read("x.conf", &text);
        let _ = super::super::read("x.conf", &format!("a: {text}\n"));
        let _ = super::super::read("x.conf", &format!("a {{ b [ {text} ] }}\n"));
    }
}
