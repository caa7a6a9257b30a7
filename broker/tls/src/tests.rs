//! Tests of streams over real sockets, with certificates made for each test.

use std::io::IoSlice;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::acceptor::Acceptor;
use crate::certificate::CertificateNames;
use crate::dialler::Dialler;
use crate::files::{Files, MinVersion};
use crate::stream::Stream;

const LIMIT: Duration = Duration::from_secs(10);

/// A folder with an authority and the certificates that it made.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        // Each authority has a name of its own. With equal names, a certificate of the wrong authority would cause a different error: a
        // wrong signature instead of an unknown authority.
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a certificate for `names`, and returns the files of its owner.
    fn files(&self, owner: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, owner);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            cert: self.path(&format!("{owner}.pem")),
            key: self.path(&format!("{owner}.key")),
            authorities: self.path("ca.pem"),
        };
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// Makes a handshake of both sides. Returns the two streams, the client's first.
async fn pair(
    client: &Dialler,
    server: &Acceptor,
    name: &str,
) -> (std::io::Result<Stream>, std::io::Result<Stream>) {
    let (dialled, accepted) = sockets().await;
    tokio::join!(
        client.connect(dialled, name, LIMIT),
        server.accept(accepted, &[], LIMIT)
    )
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(_) => std::future::poll_fn(|context| stream.poll_write_ready(context))
                .await
                .unwrap(),
        }
    }
    std::future::poll_fn(|context| stream.poll_flush(context))
        .await
        .unwrap();
}

async fn read_exact(stream: &mut Stream, len: usize, step: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let end = len.min(at + step);
        let read = std::future::poll_fn(|context| stream.poll_read(context, &mut bytes[at..end]))
            .await
            .unwrap();
        assert!(read > 0, "ended after {at} bytes");
        at += read;
    }
    bytes
}

#[tokio::test]
async fn bytes_of_any_number_arrive_in_order_in_both_directions_whatever_the_size_of_a_read() {
    let authority = Authority::new();
    let files = authority.files("server", |_| {});
    for version in [MinVersion::Tls12, MinVersion::Tls13] {
        let server = Acceptor::new(&files, false, version).unwrap();
        let client = Dialler::new(
            &Files {
                authorities: files.authorities.clone(),
                ..Files::default()
            },
            true,
            version,
        )
        .unwrap();
        let (dialled, accepted) = pair(&client, &server, "localhost").await;
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        for (len, step) in [
            (1, 1),
            (100, 7),
            (20_000, 1000),
            (3_000_000, 300_000),
            (3_000_000, 5000),
        ] {
            let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let (received, ()) =
                tokio::join!(read_exact(&mut accepted, len, step), write_all(&dialled, &sent));
            assert!(received == sent, "{len} bytes in reads of {step}");
            let (received, ()) =
                tokio::join!(read_exact(&mut dialled, len, step), write_all(&accepted, &sent));
            assert!(received == sent, "{len} bytes in reads of {step}");
        }
        dialled.shutdown().await.unwrap();
        let end = std::future::poll_fn(|context| accepted.poll_read(context, &mut [0; 10])).await;
        assert_eq!(end.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_a_full_socket_does_not_take_is_sent_when_it_takes_bytes_again() {
    let authority = Authority::new();
    let files = authority.files("server", |_| {});
    let server = Acceptor::new(&files, false, MinVersion::Tls12).unwrap();
    let client = Dialler::new(
        &Files {
            authorities: files.authorities.clone(),
            ..Files::default()
        },
        true,
        MinVersion::Tls12,
    )
    .unwrap();
    let (dialled, accepted) = pair(&client, &server, "localhost").await;
    let (dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    let part = vec![b'x'; 50_000];
    let mut taken = 0;
    while let Ok(count) = dialled.try_write(&[IoSlice::new(&part)]) {
        taken += count;
    }
    assert!(dialled.has_unsent(), "{taken} bytes were taken");
    let flushing = std::future::poll_fn(|context| dialled.poll_flush(context));
    let (received, flushed) = tokio::join!(read_exact(&mut accepted, taken, 1000), flushing);
    flushed.unwrap();
    assert!(received.iter().all(|byte| *byte == b'x') && !dialled.has_unsent());
}

#[tokio::test]
async fn a_certificate_that_does_not_prove_the_peer_ends_the_handshake_on_both_sides() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.files("server", |_| {});
    let expired = authority.files("expired", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1)
    });
    let user = authority.files("user", |_| {});
    let stranger = other.files("stranger", |_| {});
    let trusted = |files: Files| Files {
        authorities: good.authorities.clone(),
        ..files
    };
    let anonymous = trusted(Files::default());
    for (case, server, verify, client, name, problem) in [
        (
            "wrong name",
            &good,
            false,
            &anonymous,
            "example.org",
            "NotValidForName",
        ),
        (
            "wrong address",
            &good,
            false,
            &anonymous,
            "127.0.0.1",
            "NotValidForName",
        ),
        ("expired", &expired, false, &anonymous, "localhost", "Expired"),
        (
            "unknown authority",
            &stranger,
            false,
            &anonymous,
            "localhost",
            "UnknownIssuer",
        ),
        (
            "no client certificate",
            &good,
            true,
            &anonymous,
            "localhost",
            "NoCertificatesPresented",
        ),
        (
            "client of another authority",
            &good,
            true,
            &trusted(stranger.clone()),
            "localhost",
            "UnknownIssuer",
        ),
        ("expired client", &good, true, &expired, "localhost", "Expired"),
        ("client with a certificate", &good, true, &user, "localhost", ""),
    ] {
        let server = Acceptor::new(server, verify, MinVersion::Tls12).unwrap();
        let client = Dialler::new(client, true, MinVersion::Tls12).unwrap();
        let (dialled, accepted) = pair(&client, &server, name).await;
        let text = format!("{:?} {:?}", dialled.as_ref().err(), accepted.as_ref().err());
        assert!(problem.is_empty() || text.contains(problem), "{case}: {text}");
        assert_eq!(problem.is_empty(), accepted.is_ok(), "{case}: {text}");
        if let Ok(accepted) = accepted {
            let names = CertificateNames::of(&accepted.peer_certificate().unwrap());
            for (user, is_meant) in [("localhost", true), ("CN=user", true), ("user", false)] {
                let users = std::collections::BTreeMap::from([(user.to_owned(), ())]);
                assert_eq!(names.find(&users).is_some(), is_meant, "{user}");
            }
            assert!(dialled.is_ok());
        }
    }
}

#[tokio::test]
async fn a_second_connection_to_the_same_server_resumes_the_session() {
    let authority = Authority::new();
    let files = authority.files("server", |_| {});
    let server = Acceptor::new(&files, false, MinVersion::Tls12).unwrap();
    let client = Dialler::new(
        &Files {
            authorities: files.authorities.clone(),
            ..Files::default()
        },
        true,
        MinVersion::Tls12,
    )
    .unwrap();
    for resumes in [false, true, true] {
        let (dialled, accepted) = pair(&client, &server, "localhost").await;
        let (mut dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(dialled.has_resumed(), resumes);
        // The ticket for the next connection comes with the first bytes.
        write_all(&accepted, b"hello").await;
        assert_eq!(read_exact(&mut dialled, 5, 5).await, b"hello");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_or_ends_in_the_handshake_is_an_error() {
    let authority = Authority::new();
    let server = Acceptor::new(&authority.files("server", |_| {}), false, MinVersion::Tls12).unwrap();
    for (sent, kind) in [
        (&b"CONNECT {}\r\n"[..], std::io::ErrorKind::InvalidData),
        (b"\x16", std::io::ErrorKind::UnexpectedEof),
    ] {
        let (dialled, accepted) = sockets().await;
        dialled.writable().await.unwrap();
        dialled.try_write(sent).unwrap();
        drop(dialled);
        let accepting = server.accept(accepted, &[], LIMIT);
        let error = accepting.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let authority = Authority::new();
    let good = authority.files("server", |_| {});
    let other = authority.files("other", |_| {});
    let garbage = authority.path("garbage");
    std::fs::write(&garbage, "no PEM here").unwrap();
    for (files, text) in [
        (
            Files {
                key: PathBuf::new(),
                ..good.clone()
            },
            "cert_file is set, but key_file is not",
        ),
        (
            Files {
                cert: PathBuf::new(),
                ..good.clone()
            },
            "key_file is set, but cert_file is not",
        ),
        (
            Files {
                cert: authority.path("absent"),
                ..good.clone()
            },
            "cannot read",
        ),
        (
            Files {
                cert: garbage.clone(),
                ..good.clone()
            },
            "has no section \"BEGIN CERTIFICATE\"",
        ),
        (
            Files {
                key: garbage.clone(),
                ..good.clone()
            },
            "has no section \"BEGIN PRIVATE KEY\"",
        ),
        (
            Files {
                key: other.key.clone(),
                ..good.clone()
            },
            "does not fit",
        ),
        (
            Files {
                authorities: garbage.clone(),
                ..good.clone()
            },
            "has no section",
        ),
    ] {
        let error = Acceptor::new(&files, true, MinVersion::Tls12)
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(good.expires_at().unwrap().is_some());
}

#[tokio::test]
async fn a_handshake_in_which_the_peer_is_silent_ends_at_its_limit() {
    let authority = Authority::new();
    let server = Acceptor::new(&authority.files("server", |_| {}), false, MinVersion::Tls12).unwrap();
    let (_silent, accepted) = sockets().await;
    let error = server
        .accept(accepted, &[], Duration::from_millis(20))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
