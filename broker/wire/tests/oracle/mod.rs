//! Assertions that must hold for any bytes. The fuzz targets (`tests/fuzz.d`) and the tests of this folder use them.

use serde_json::Value;
use standin_wire::limits::{FrameLimits, INFO_LINE_BYTES_MAX};
use standin_wire::scanner::Dialect;
use standin_wire::{
    Connect, Info, Refusal, Scanner, Span, WireError, client, connect, encode, refusal, server,
};

/// Small limits, which short inputs can exceed.
pub(crate) const LIMITS: FrameLimits = FrameLimits {
    line_bytes_max: 96,
    payload_bytes_max: 200,
};

/// The spans of the frames in a stream, and the error at its end; `None` if the stream ends without an error.
pub(crate) type Scan<V> = (Vec<Span<V>>, Option<WireError>);

/// One side of the protocol, with the checks of its frames.
pub(crate) trait Side: Dialect {
    /// Checks the frame `bytes` with the span `span`.
    fn check_frame(bytes: &[u8], span: &Span<Self::Verb>, limits: FrameLimits);
}

impl Side for client::Client {
    fn check_frame(bytes: &[u8], span: &Span<client::Verb>, limits: FrameLimits) {
        let frame = client::frame(bytes, span).expect("the span is that of the frame");
        assert_eq!(client::decode(bytes, limits), Ok(Some((frame, bytes.len()))));
        let mut again = Vec::new();
        encode::client(&frame, &mut again);
        assert_eq!(
            client::decode(&again, roomy(limits)),
            Ok(Some((frame, again.len())))
        );
        if let client::Frame::Publish(publish) = frame {
            let total = publish.payload.len() + publish.headers.map_or(0, <[u8]>::len);
            assert!(total <= limits.payload_bytes_max);
        }
    }
}

impl Side for server::Server {
    fn check_frame(bytes: &[u8], span: &Span<server::Verb>, limits: FrameLimits) {
        let frame = server::frame(bytes, span).expect("the span is that of the frame");
        assert_eq!(server::decode(bytes, limits), Ok(Some((frame, bytes.len()))));
        if let server::Frame::Err(text) = frame {
            let _ = Refusal::of(text).kind();
            let _ = refusal::refused_subscription(text);
            if text.contains(&b'\'') || text.contains(&b'\r') {
                return;
            }
        }
        let mut again = Vec::new();
        encode::server(&frame, &mut again);
        assert_eq!(
            server::decode(&again, roomy(limits)),
            Ok(Some((frame, again.len())))
        );
        if let server::Frame::Message(message) = frame {
            let total = message.payload.len() + message.headers.map_or(0, <[u8]>::len);
            assert!(total <= limits.payload_bytes_max);
            assert_eq!(server::message_sid(span.args(bytes)), message.sid);
        }
    }
}

/// Returns larger limits for a frame that is encoded again: its line may be longer by two quotes and a blank.
fn roomy(limits: FrameLimits) -> FrameLimits {
    FrameLimits {
        line_bytes_max: limits.line_bytes_max + 3,
        ..limits
    }
}

/// Scans `stream` with `scanner`, which may have scanned other bytes before. `cuts` are the offsets at which the reads end.
pub(crate) fn scan<D: Side>(scanner: &mut Scanner<D>, stream: &[u8], cuts: &[usize]) -> Scan<D::Verb> {
    let mut spans: Vec<Span<D::Verb>> = Vec::new();
    let mut at = 0;
    for end in cuts
        .iter()
        .copied()
        .filter(|cut| *cut < stream.len())
        .chain([stream.len()])
    {
        while at < end {
            match scanner.next(&stream[at..end]) {
                Ok(Some(span)) => {
                    assert!(span.head <= span.len && span.len <= end - at && span.len > 0);
                    spans.push(span);
                    at += span.len;
                }
                Ok(None) => break,
                Err(error) => return (spans, Some(error)),
            }
        }
    }
    (spans, None)
}

/// Scans the whole `stream` with a new scanner, and checks each frame by itself and against the limits.
pub(crate) fn checked_scan<D: Side>(stream: &[u8], limits: FrameLimits) -> Scan<D::Verb> {
    let (spans, error) = scan::<D>(&mut Scanner::new(limits), stream, &[]);
    let mut at = 0;
    for span in &spans {
        let frame = &stream[at..at + span.len];
        assert!(frame[..span.head].ends_with(b"\n"));
        assert!(span.args(frame).len() <= limits.line_bytes_max + 1);
        D::check_frame(frame, span, limits);
        at += span.len;
    }
    (spans, error)
}

/// Asserts that two scans have the same result. Ignores `repeats` and the bytes of an unknown verb, which depend on how the
/// stream is split.
pub(crate) fn assert_same<V: Copy + std::fmt::Debug + PartialEq>(one: &Scan<V>, other: &Scan<V>) {
    let places = |scan: &Scan<V>| -> Vec<_> {
        scan.0
            .iter()
            .map(|span| (span.verb, span.head, span.len))
            .collect()
    };
    let without_bytes = |error: WireError| match error {
        WireError::UnknownVerb(_) => WireError::UnknownVerb([0; 4]),
        error => error,
    };
    assert_eq!(places(one), places(other));
    assert_eq!(one.1.map(without_bytes), other.1.map(without_bytes));
}

/// Asserts that `repeats` is set only for a message whose control line equals that of the message before.
pub(crate) fn assert_repeats_are_true<V: Copy + std::fmt::Debug + PartialEq>(
    stream: &[u8],
    spans: &[Span<V>],
) {
    let mut at = 0;
    let mut before: Option<&[u8]> = None;
    for span in spans {
        let line = &stream[at..at + span.head];
        assert!(!span.repeats || before == Some(line), "{}", line.escape_ascii());
        if span.len > span.head {
            before = Some(line);
        }
        at += span.len;
    }
}

/// Oracle for a stream. Scans it as a whole, byte by byte, split at `cuts`, and with a scanner that has already scanned the same
/// bytes. Asserts that all scans find the same frames and the same error, and that each frame is within the limits and
/// decodes to the same frame after it was encoded.
pub(crate) fn stream<D: Side>(stream: &[u8], cuts: &[usize], limits: FrameLimits) {
    let whole = checked_scan::<D>(stream, limits);
    let mut scanner = Scanner::<D>::new(limits);
    let cold = scan(&mut scanner, stream, cuts);
    assert_same(&whole, &cold);
    assert_repeats_are_true(stream, &cold.0);
    assert_same(&whole, &scan(&mut scanner, stream, cuts));
    assert_same(&whole, &scan(&mut scanner, stream, &[]));
    let every: Vec<usize> = (1..stream.len()).collect();
    let by_byte = scan(&mut scanner, stream, &every);
    assert_same(&whole, &by_byte);
}

/// Applies the oracle for streams to an input of a fuzzer. The first byte of the input is the size of the reads.
pub(crate) fn fuzzed_stream<D: Side>(input: &[u8]) {
    let Some((&step, bytes)) = input.split_first() else {
        return;
    };
    let cuts: Vec<usize> = (0..bytes.len()).step_by(usize::from(step).max(1)).collect();
    stream::<D>(bytes, &cuts, LIMITS);
    stream::<D>(bytes, &cuts, FrameLimits::SERVER);
}

/// Oracle for JSON. Asserts that no text causes a panic, that a written line parses to the same value, that a short INFO line
/// is valid and within its limit, and that a CONNECT stays valid when fields are set.
pub(crate) fn json(text: &[u8]) {
    if let Ok(info) = Info::parse(text) {
        assert_eq!(info_of(&info.line()), info);
        let short = info.short_line();
        assert!(short.len() <= INFO_LINE_BYTES_MAX, "{} bytes", short.len());
        let short = info_of(&short);
        assert_eq!((short.port, short.max_payload), (info.port, info.max_payload));
        assert!(short.nonce == info.nonce || short.nonce.is_empty());
    }
    let read = Connect::parse(text);
    if let Ok(connect) = &read {
        let _ = (connect.has_credentials(), connect.is_signed());
    }
    match connect::with_fields(text, [("protocol", Value::from(1)), ("user", Value::from("u"))]) {
        Ok(edited) => {
            let object: Value = serde_json::from_str(&edited).expect("the output is JSON");
            assert_eq!(
                (&object["protocol"], &object["user"]),
                (&Value::from(1), &Value::from("u"))
            );
            assert!(!edited.contains('\n'));
            if let Ok(before) = read {
                let after = Connect::parse(edited.as_bytes()).expect("a valid CONNECT stays valid");
                assert_eq!(
                    after,
                    Connect {
                        protocol: 1,
                        user: Some("u".into()),
                        ..before
                    }
                );
            }
        }
        Err(_) => assert!(read.is_err()),
    }
}

fn info_of(line: &str) -> Info {
    let json = line
        .strip_prefix("INFO ")
        .and_then(|rest| rest.strip_suffix("\r\n"))
        .expect("one line");
    assert!(!json.contains('\n'));
    Info::parse(json.as_bytes()).expect("a written line can be parsed")
}
