//! Properties that hold for all frames and bytes: encoding and decoding are inverse, the result does not depend on how a
//! stream is split into reads, the limits are enforced, and nothing panics.

use crate::oracle;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use standin_wire::client::{self, Client};
use standin_wire::limits::{FrameLimits, INFO_LINE_BYTES_MAX};
use standin_wire::scanner::Dialect;
use standin_wire::server::{self, Server};
use standin_wire::{Info, Refusal, Scanner, Span, encode, refusal, subject};

/// Bytes of a frame without payload.
fn line(verb: &str, tokens: Vec<Vec<u8>>) -> Vec<u8> {
    [verb.as_bytes(), b" ", &tokens.join(&b' '), b"\r\n"].concat()
}

/// Bytes of a message. `names`: the tokens before the reply subject.
fn message(
    verb: &str,
    names: Vec<Vec<u8>>,
    reply: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    payload: Vec<u8>,
) -> Vec<u8> {
    let letter = if headers.is_some() { "H" } else { "" };
    let mut sizes: Vec<usize> = headers.iter().map(Vec::len).collect();
    sizes.push(sizes.iter().sum::<usize>() + payload.len());
    let sizes = sizes.iter().map(|size| size.to_string().into_bytes());
    let tokens = names.into_iter().chain(reply).chain(sizes).collect();
    let head = line(&format!("{letter}{verb}"), tokens);
    [head, headers.unwrap_or_default(), payload, b"\r\n".to_vec()].concat()
}

/// A token: usually one of a few, so that control lines repeat; sometimes any bytes except blanks and line ends.
fn token() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b.c", "1", "17", "orders.eu.*", ">"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>().prop_filter("no blank", |byte| !b" \t\r\n".contains(byte)), 1..60),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(b"hello\r\nPING\r\n".to_vec()),
        1 => vec(any::<u8>(), 0..80),
    ]
}

/// Bytes of a client's frame, in the form in which this crate encodes it.
fn client_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => "CONNECT \\{\"name\":\"[a-zé ]{0,40}\"\\}\r\n".prop_map(String::into_bytes),
        6 => (token(), option::of(token()), option::of(body()), body())
            .prop_map(|(subject, reply, headers, payload)| message("PUB", vec![subject], reply, headers, payload)),
        2 => (token(), option::of(token()), token())
            .prop_map(|(subject, queue, sid)| line("SUB", [subject].into_iter().chain(queue).chain([sid]).collect())),
        1 => (token(), option::of(1..1_000_000_000_u64)).prop_map(|(sid, max)| {
            let max = max.map(|max| max.to_string().into_bytes());
            line("UNSUB", [sid].into_iter().chain(max).collect())
        }),
        1 => Just(b"PING\r\n".to_vec()),
        1 => Just(b"PONG\r\n".to_vec()),
        1 => Just(b"MOVE {}\r\n".to_vec()),
    ]
}

/// Bytes of a server's frame, in the form in which this crate encodes it.
fn server_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => "INFO \\{\"host\":\"[a-zé ]{0,40}\"\\}\r\n".prop_map(String::into_bytes),
        6 => (token(), token(), option::of(token()), option::of(body()), body()).prop_map(
            |(subject, sid, reply, headers, payload)| message("MSG", vec![subject, sid], reply, headers, payload)
        ),
        1 => "-ERR '[^'\r\n]{0,60}'\r\n".prop_map(String::into_bytes),
        1 => Just(b"+OK\r\n".to_vec()),
        1 => Just(b"PING\r\n".to_vec()),
        1 => Just(b"PONG\r\n".to_vec()),
        1 => Just(b"MOVE {}\r\n".to_vec()),
    ]
}

/// A sequence of frames, some of them repeated.
fn frames(frame: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec((frame, 1..4_usize), 0..12).prop_map(|frames| {
        let repeated = |(frame, times)| std::iter::repeat_n(frame, times);
        frames.into_iter().flat_map(repeated).collect()
    })
}

/// Scans the stream of these frames, and returns each frame with its span. The lengths must be those of `frames`.
fn split<D: Dialect>(frames: &[Vec<u8>], limits: FrameLimits) -> Vec<(&[u8], Span<D::Verb>)> {
    let (stream, mut at) = (frames.concat(), 0);
    let mut scanner = Scanner::<D>::new(limits);
    let spans = frames.iter().map(|frame| {
        let span = scanner
            .next(&stream[at..])
            .expect("a valid frame")
            .expect("a whole frame");
        assert_eq!(span.len, frame.len());
        at += span.len;
        (frame.as_slice(), span)
    });
    spans.collect()
}

fn sorted_cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(0..2000_usize, 0..20).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

/// Bytes that resemble the protocol more than random bytes do.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let words = "PUB |HPUB |SUB |UNSUB |MSG |HMSG |PING|PONG|+OK|-ERR |INFO |CONNECT |MOVE |\r\n|\n|\r| |\t|0|3|12|999999999|a|'|{}";
    let words: Vec<&str> = words.split('|').collect();
    vec(
        prop_oneof![
            6 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 1..4),
        ],
        0..30,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn client_frames_are_decoded_and_encoded_to_the_same_bytes(frames in frames(client_frame())) {
        let mut again = Vec::new();
        for (bytes, span) in split::<Client>(&frames, FrameLimits::CLIENT) {
            encode::client(&client::frame(bytes, &span).unwrap(), &mut again);
        }
        prop_assert_eq!(again, frames.concat());
    }

    #[test]
    fn server_frames_are_decoded_and_encoded_to_the_same_bytes(frames in frames(server_frame())) {
        let mut again = Vec::new();
        for (bytes, span) in split::<Server>(&frames, FrameLimits::SERVER) {
            encode::server(&server::frame(bytes, &span).unwrap(), &mut again);
        }
        prop_assert_eq!(again, frames.concat());
    }

    #[test]
    fn decoded_frames_encode_to_the_same_frames(bytes in garbage()) {
        // The oracle encodes each frame that it finds, and decodes the result.
        oracle::checked_scan::<Client>(&bytes, FrameLimits::CLIENT);
        oracle::checked_scan::<Server>(&bytes, FrameLimits::SERVER);
    }

    #[test]
    fn a_client_stream_has_the_same_frames_wherever_it_is_split(
        frames in frames(client_frame()), cuts in sorted_cuts(), at in any::<prop::sample::Index>(), splice in garbage(),
    ) {
        let mut stream = frames.concat();
        oracle::stream::<Client>(&stream, &cuts, FrameLimits::CLIENT);
        let at = at.index(stream.len() + 1);
        stream.splice(at..at, splice);
        oracle::stream::<Client>(&stream, &cuts, FrameLimits::CLIENT);
        oracle::stream::<Client>(&stream, &cuts, oracle::LIMITS);
    }

    #[test]
    fn a_server_stream_has_the_same_frames_wherever_it_is_split(
        frames in frames(server_frame()), cuts in sorted_cuts(), at in any::<prop::sample::Index>(), splice in garbage(),
    ) {
        let mut stream = frames.concat();
        oracle::stream::<Server>(&stream, &cuts, FrameLimits::SERVER);
        let at = at.index(stream.len() + 1);
        stream.splice(at..at, splice);
        oracle::stream::<Server>(&stream, &cuts, FrameLimits::SERVER);
        oracle::stream::<Server>(&stream, &cuts, oracle::LIMITS);
    }

    #[test]
    fn a_stream_without_one_of_its_bytes_has_the_same_frames_wherever_it_is_split(
        frames in frames(client_frame()), cuts in sorted_cuts(), at in any::<prop::sample::Index>(),
    ) {
        let mut stream = frames.concat();
        if !stream.is_empty() {
            stream.remove(at.index(stream.len()));
        }
        oracle::stream::<Client>(&stream, &cuts, oracle::LIMITS);
    }

    #[test]
    fn the_case_of_verbs_and_the_number_of_blanks_are_ignored(
        frame in client_frame(), capitals in vec(any::<bool>(), 8), blanks in "[ \t]{1,5}", bare in any::<bool>(),
    ) {
        let line = frame.iter().position(|byte| *byte == b'\n').unwrap() - 1;
        let (text, rest) = (&frame[..line], &frame[line + 2..]);
        let verb = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        let mut odd: Vec<u8> = text[..verb].iter().zip(&capitals)
            .map(|(byte, capital)| if *capital { *byte } else { byte.to_ascii_lowercase() }).collect();
        if text.starts_with(b"CONNECT") {
            odd.extend_from_slice(&text[verb..]);
        } else {
            for token in text[verb..].split(|byte| *byte == b' ').filter(|token| !token.is_empty()) {
                odd.extend_from_slice(blanks.as_bytes());
                odd.extend_from_slice(token);
            }
            odd.extend_from_slice(blanks.as_bytes());
        }
        odd.extend_from_slice(if bare { b"\n" } else { b"\r\n" });
        odd.extend_from_slice(rest);
        let (wanted, _) = client::decode(&frame, FrameLimits::CLIENT).unwrap().unwrap();
        prop_assert_eq!(client::decode(&odd, FrameLimits::CLIENT), Ok(Some((wanted, odd.len()))));
    }

    #[test]
    fn wildcards_match_like_a_simple_implementation(pattern in "([ab]|\\*)(\\.([ab]|\\*)){0,4}(\\.>)?|>", name in "[ab](\\.[ab]){0,5}") {
        prop_assert!(subject::valid_subscription(pattern.as_bytes()));
        prop_assert!(subject::valid_publish(name.as_bytes()));
        let wanted: Vec<&str> = pattern.split('.').collect();
        let tokens: Vec<&str> = name.split('.').collect();
        prop_assert_eq!(subject::matches(pattern.as_bytes(), name.as_bytes()), simple_match(&wanted, &tokens));
        prop_assert!(subject::matches(name.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn any_bytes_may_be_checked_as_a_subject(bytes in vec(any::<u8>(), 0..40), other in vec(any::<u8>(), 0..40)) {
        let _ = subject::matches(&bytes, &other);
        if subject::valid_publish(&bytes) {
            prop_assert!(subject::valid_subscription(&bytes));
            prop_assert!(subject::matches(&bytes, &bytes) && subject::matches(b">", &bytes));
        }
    }

    #[test]
    fn s7_a_short_info_line_is_short_and_valid(
        texts in vec("\\PC{0,300}|[\u{0}-\u{1f}\"\\\\]{0,300}", 10), urls in vec("[a-z0-9.:]{1,40}", 0..40),
        numbers in any::<(u16, i64, u64, u32)>(), flags in any::<[bool; 8]>(),
    ) {
        let info = Info {
            server_id: texts[0].clone(),
            server_name: texts[1].clone(),
            version: texts[2].clone(),
            host: texts[3].clone(),
            client_ip: texts[4].clone(),
            nonce: texts[5].clone(),
            cluster: texts[6].clone(),
            git_commit: texts[7].clone(),
            go: texts[8].clone(),
            sidecars: texts[9].clone(),
            moves: flags[7],
            connect_urls: urls,
            port: numbers.0,
            max_payload: numbers.1,
            client_id: numbers.2,
            proto: numbers.3,
            headers: flags[0],
            auth_required: flags[1],
            tls_required: flags[2],
            tls_verify: flags[3],
            tls_available: flags[6],
            jetstream: flags[4],
            ldm: flags[5],
        };
        let line = info.short_line();
        prop_assert!(line.len() <= INFO_LINE_BYTES_MAX);
        let (frame, len) = server::decode(line.as_bytes(), FrameLimits::SERVER).unwrap().unwrap();
        prop_assert_eq!(len, line.len());
        let server::Frame::Info(json) = frame else { panic!("{frame:?}") };
        let short = Info::parse(json).unwrap();
        prop_assert_eq!(short.max_payload, info.max_payload);
        prop_assert!(short.nonce == info.nonce || short.nonce.is_empty());
        if info.line().len() <= INFO_LINE_BYTES_MAX {
            prop_assert_eq!(short, info);
        }
        oracle::json(json);
    }

    #[test]
    fn the_kind_of_an_err_does_not_depend_on_the_case_of_its_text(text in vec(any::<u8>(), 0..80)) {
        let refusal = Refusal::of(&text);
        prop_assert_eq!(Refusal::of(&text.to_ascii_uppercase()), refusal);
        let _ = (refusal.kind(), refusal::replaces_ok(&text), refusal::refused_subscription(&text));
    }

    #[test]
    fn any_bytes_may_be_parsed_as_json(bytes in vec(any::<u8>(), 0..80), text in "[{}\\[\\]\",:a-z0-9 ]{0,60}") {
        oracle::json(&bytes);
        oracle::json(text.as_bytes());
    }
}

fn simple_match(pattern: &[&str], tokens: &[&str]) -> bool {
    match (pattern, tokens) {
        ([">"], [_, ..]) | ([], []) => true,
        ([first, pattern @ ..], [token, tokens @ ..]) => {
            (*first == "*" || first == token) && simple_match(pattern, tokens)
        }
        _ => false,
    }
}
