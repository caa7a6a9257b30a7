//! Benchmark of the scanner: bytes per second with payloads of 16 B, 128 B and 4 KiB, in both directions. The control lines are
//! equal (`same`), differ from message to message (`varied`), or also have their verb in lower case (`odd`), which only the
//! general path of the scanner accepts.

use std::hint::black_box;

use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use standin_wire::Scanner;
use standin_wire::client::Client;
use standin_wire::limits::FrameLimits;
use standin_wire::scanner::Dialect;
use standin_wire::server::Server;

const STREAM_BYTES: usize = 256 * 1024;

fn stream(payload: usize, line: impl Fn(usize) -> String) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut count = 0;
    while stream.len() < STREAM_BYTES {
        stream.extend_from_slice(line(count).as_bytes());
        stream.resize(stream.len() + payload, b'x');
        stream.extend_from_slice(b"\r\n");
        count += 1;
    }
    stream
}

/// Measures the scan of all frames in `bytes`.
fn scan_all<D: Dialect>(bencher: &mut Bencher<'_>, bytes: &[u8], limits: FrameLimits) {
    let mut scanner = Scanner::<D>::new(limits);
    bencher.iter(|| {
        let mut at = 0;
        while let Ok(Some(span)) = scanner.next(black_box(&bytes[at..])) {
            at += span.len;
        }
        at
    });
}

fn scan(criterion: &mut Criterion) {
    for payload in [16, 128, 4096] {
        let subject = |n| format!("orders.eu.{}", n % 100);
        let streams = [
            (
                "pub/same",
                stream(payload, |_| format!("PUB orders.eu.new {payload}\r\n")),
            ),
            (
                "pub/varied",
                stream(payload, |n| format!("PUB {} {payload}\r\n", subject(n))),
            ),
            (
                "pub/odd",
                stream(payload, |n| format!("pub {} {payload}\r\n", subject(n))),
            ),
            (
                "msg/same",
                stream(payload, |_| format!("MSG orders.eu.new 17 {payload}\r\n")),
            ),
            (
                "msg/varied",
                stream(payload, |n| {
                    format!("MSG orders.eu.new {} {payload}\r\n", n % 100)
                }),
            ),
        ];
        let mut group = criterion.benchmark_group("scan");
        for (name, bytes) in &streams {
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_with_input(BenchmarkId::new(*name, payload), bytes, |bencher, bytes| {
                if name.starts_with("pub") {
                    scan_all::<Client>(bencher, bytes, FrameLimits::CLIENT);
                } else {
                    scan_all::<Server>(bencher, bytes, FrameLimits::SERVER);
                }
            });
        }
        group.finish();
    }
}

criterion_group!(benches, scan);
criterion_main!(benches);
