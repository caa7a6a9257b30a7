//! The HTTP pages of both programs: where they listen, HTTPS, the token that they ask for, and that they show no secret.

use e2e::{Authority, Node, Program, RawClient, ServerKind, Sidecar, TIMEOUT, eventually, peers, port};
use nix::sys::signal::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Runs curl with these arguments. Returns the status code of the response, 0 if there is none, and everything that curl wrote, with
/// the headers of the response.
fn curl(arguments: &[&str]) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--max-time", "10"]);
    let output = command.args(arguments).output().expect("curl");
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let text = texts.concat();
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    (code.and_then(|code| code.parse().ok()).unwrap_or(0), text)
}

fn status(arguments: &[&str]) -> u16 {
    curl(arguments).0
}

#[tokio::test]
async fn the_broker_serves_https_at_the_port_of_ms_with_the_certificate_for_clients_as_nats_server_does() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("node", &["127.0.0.1"]);
    let ca = authority.file();
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let address = port::free_address();
        let https_port = address.port().to_string();
        let pages = ["-m", "0", "-ms", &https_port];
        // Clients of NATS need a certificate, readers of the pages need none.
        let tls = [
            "--tls",
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
            "--tlsverify",
            "--tlscacert",
            &ca,
        ];
        let mut node = Node::start(kind, &[&pages[..], &tls].concat()).await;
        node.logs(&format!("Starting https monitor on {address}")).await;
        let url = format!("https://{address}/varz");
        let (code, text) = curl(&["--cacert", &ca, &url]);
        assert_eq!(code, 200, "{kind:?}: {text}");
        let shown = [
            format!("\"https_port\": {https_port}"),
            "\"http_port\": 0".to_owned(),
        ];
        for shown in shown {
            assert!(text.contains(&shown), "{kind:?}: {shown} in {text}");
        }
        assert_eq!(
            status(&["--cacert", &ca, "--tls-max", "1.2", &url]),
            200,
            "{kind:?}"
        );
        assert_eq!(status(&[&url]), 0, "{kind:?}: the authority is unknown");
        let plain = format!("http://{address}/varz");
        assert_ne!(status(&[&plain]), 200, "{kind:?}");
    }
}

/// A broker and a sidecar whose pages have a certificate of their own.
struct Pages {
    node: Node,
    sidecar: Sidecar,
}

impl Pages {
    /// Starts both with these settings.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let variable = |key: &str| format!("STANDIN_{}", key.replace('.', "_").to_uppercase());
        let environment: Vec<(String, &str)> = settings
            .iter()
            .map(|(key, value)| (variable(key), *value))
            .collect();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let node = Node::start_in(ServerKind::Standin, &[], &environment).await;
        let mut sidecar = Sidecar::builder().upstream([node.url()]);
        for (key, value) in settings {
            sidecar = match value.parse::<u64>() {
                Ok(number) => sidecar.setting(key, number),
                Err(_) if *value == "true" => sidecar.setting(key, true),
                Err(_) => sidecar.setting(key, *value),
            };
        }
        let sidecar = sidecar.start_listening().await;
        Self { node, sidecar }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.node.http().address, self.sidecar.http().address]
    }
}

#[tokio::test]
async fn https_pages_ask_for_certificates_and_follow_replaced_ones() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("pages", &["127.0.0.1"]);
    let (user_cert, user_key) = authority.certify("monitor", &["monitor"]);
    let ca = authority.file();
    let pages = Pages::start(&[
        ("tls.http.mode", "required"),
        ("tls.http.cert_file", &cert),
        ("tls.http.key_file", &key),
        ("tls.http.ca_file", &ca),
        ("tls.http.verify", "true"),
        ("tls.http.min_version", "1.3"),
    ])
    .await;
    let reader = ["--cacert", &ca, "--cert", &user_cert, "--key", &user_key];
    for address in pages.addresses() {
        let url = format!("https://{address}/metrics");
        let with = |more: &[&str]| status(&[&reader[..], more, &[&url]].concat());
        let (code, text) = curl(&[&reader[..], &[&url]].concat());
        assert_eq!(code, 200, "{address}: {text}");
        assert!(
            text.contains("certificate_expires_seconds{door=\"tls.http\"}"),
            "{text}"
        );
        assert_eq!(status(&["--cacert", &ca, &url]), 0, "{address}: no certificate");
        assert_eq!(with(&["--tls-max", "1.2"]), 0, "{address}: an old version");
        assert_ne!(status(&[&url.replace("https", "http")]), 200, "{address}");
    }
    for (name, code) in [("elsewhere.example", 0), ("127.0.0.1", 200)] {
        authority.certify("pages", &[name]);
        for address in pages.addresses() {
            let url = format!("https://{address}/metrics");
            let now = async || status(&[&reader[..], &[&url]].concat()) == code;
            eventually("new connections get the new certificate", TIMEOUT, now).await;
        }
    }
    // Connections that never begin the handshake are closed after tls.http.timeout_ms, and keep nobody out.
    for address in pages.addresses() {
        let mut silent = Vec::new();
        let begun = Instant::now();
        for _ in 0..100 {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let url = format!("https://{address}/metrics");
        assert_eq!(status(&[&reader[..], &[&url]].concat()), 200, "{address}");
        for mut stream in silent {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{address}: {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn pages_with_a_token_answer_only_requests_that_carry_it() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, "s3cr3t\n").expect("the file is written");
    let file_name = file.display().to_string();
    let mut pages = Pages::start(&[("http.token_file", &file_name)]).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let with = |token: &str, url: &str| status(&["--header", &bearer(token), url]);
    for (address, page) in pages.addresses().into_iter().zip(["/varz", "/sessionz"]) {
        let url = |page: &str| format!("http://{address}{page}");
        for page in ["/", page, "/metrics", "/healthz?nodes=1", "/nothing"] {
            let (code, text) = curl(&[&url(page)]);
            assert_eq!(code, 401, "{address}{page}: {text}");
            let text = text.to_lowercase();
            assert!(
                text.contains("www-authenticate: bearer "),
                "{address}{page}: {text}"
            );
            assert_eq!(with("s3cr3", &url(page)), 401, "{address}{page}");
            assert_ne!(with("s3cr3t", &url(page)), 401, "{address}{page}");
        }
        assert_eq!(with("s3cr3t", &url(page)), 200, "{address}");
        assert_eq!(status(&["--request", "POST", &url(page)]), 401, "{address}");
        assert_eq!(status(&[&url("/healthz")]), 200, "{address}: for supervisors");
        // A browser gets the page, which asks for the token.
        let browser = ["--header", "Accept: text/html,*/*;q=0.8"];
        let (code, text) = curl(&[&browser[..], &[&url("/")]].concat());
        assert_eq!(code, 200, "{address}: {text}");
        let text = text.to_lowercase();
        for shown in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "token",
        ] {
            assert!(text.contains(shown), "{address}: {shown} in {text}");
        }
        for file in ["/page/page.css", "/page/program.js"] {
            assert_eq!(status(&[&url(file)]), 200, "{address}{file}");
        }
        assert_eq!(status(&[&browser[..], &[&url(page)]].concat()), 401, "{address}");
    }
    // A new token is read at SIGHUP. A file without one changes nothing.
    let mut reload = async |token: &str, line: &str| {
        fs::write(&file, token).expect("the file is written");
        for (process, line) in [(pages.node.process(), line), (pages.sidecar.process(), line)] {
            let mark = process.mark();
            process.signal(Signal::SIGHUP);
            process.wait_for_line_after(mark, line, TIMEOUT).await;
        }
        pages.addresses()
    };
    for address in reload("an0ther", "eloaded").await {
        let url = format!("http://{address}/metrics");
        assert_eq!(
            (with("s3cr3t", &url), with("an0ther", &url)),
            (401, 200),
            "{address}"
        );
    }
    for address in reload("\n", "token is empty: write the secret into it").await {
        let url = format!("http://{address}/metrics");
        assert_eq!((with("", &url), with("an0ther", &url)), (401, 200), "{address}");
    }
}

/// A site that a browser of this host has open may lead its own name to a loopback address (DNS rebinding).
#[tokio::test]
async fn pages_on_loopback_are_not_served_under_the_name_of_a_site() {
    let pages = Pages::start(&[]).await;
    let as_host = |host: &str, url: &str| status(&["--header", &format!("Host: {host}"), url]);
    for (address, page) in pages.addresses().into_iter().zip(["/varz", "/sessionz"]) {
        let url = |page: &str| format!("http://{address}{page}");
        for host in ["evil.example.com", "127.0.0.1.evil.example.com:8222"] {
            for page in ["/", page, "/metrics", "/healthz?nodes=1", "/page/page.css"] {
                assert_eq!(as_host(host, &url(page)), 403, "{host} {address}{page}");
            }
            assert_eq!(
                as_host(host, &url("/healthz")),
                200,
                "{host} {address}: for supervisors"
            );
        }
        for host in ["localhost", "node-1:8222", "10.0.0.1", "[::1]:8222", ""] {
            assert_eq!(as_host(host, &url(page)), 200, "{host} {address}");
        }
    }
    let node = Node::start_in(ServerKind::Standin, &[], &[("STANDIN_HTTP_ADDR", "0.0.0.0")]).await;
    let url = format!("http://127.0.0.1:{}/varz", node.http().address.port());
    assert_eq!(as_host("node-1.example.org", &url), 200, "on every address");
}

/// A port of a settings file means a loopback address; a flag or a file of nats-server means what it means to nats-server.
#[tokio::test]
async fn pages_are_on_loopback_unless_told_otherwise() {
    let folder = TempDir::new().expect("a folder");
    let conf = folder.path().join("nats.conf");
    fs::write(&conf, "port: -1\nhttp_port: -1\n").expect("the file is written");
    let conf = conf.display().to_string();
    let flags = ["-p", "-1", "-m", "-1"];
    for (kind, arguments, variable, shown) in [
        (ServerKind::Standin, &["-p", "-1"][..], Some("-1"), "127.0.0.1:"),
        (ServerKind::Standin, &flags, None, "0.0.0.0:"),
        (ServerKind::NatsServer, &flags, None, "0.0.0.0:"),
        (ServerKind::Standin, &["-c", &conf], None, "0.0.0.0:"),
        (ServerKind::NatsServer, &["-c", &conf], None, "0.0.0.0:"),
    ] {
        let mut program = kind.program().args(arguments);
        if let Some(port) = variable {
            program = program.env("STANDIN_HTTP_PORT", port);
        }
        let mut process = program.start(kind.name());
        let line = format!("Starting http monitor on {shown}");
        process.wait_for_line(&line, TIMEOUT).await;
    }
    let port = port::free_address().port().to_string();
    let mut sidecar = Program::new(peers::sidecar_binary())
        .args([
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            "127.0.0.1:1",
            "--http",
            &port,
        ])
        .start("the sidecar");
    let line = format!("serving HTTP address=127.0.0.1:{port}");
    sidecar.wait_for_line(&line, TIMEOUT).await;
    assert_eq!(status(&[&format!("http://127.0.0.1:{port}/healthz")]), 200);
}

const BROKER_PAGES: [&str; 11] = [
    "/",
    "/varz",
    "/connz?auth=1&subs=detail&state=all",
    "/routez?subs=detail",
    "/subsz?subs=1",
    "/accountz",
    "/accstatz",
    "/gatewayz",
    "/jsz",
    "/healthz",
    "/metrics",
];

const SIDECAR_PAGES: [&str; 9] = [
    "/",
    "/healthz?nodes=1",
    "/readyz",
    "/metrics",
    "/varz",
    "/sessionz",
    "/nodez",
    "/movez",
    "/nothing",
];

/// Reads these pages with a token, and checks that none shows a secret. All secrets of this test begin with `hunter`.
fn assert_no_secret(address: SocketAddr, token: &Path, pages: &[&str]) {
    let token = fs::read_to_string(token).expect("the token");
    let header = format!("Authorization: Bearer {token}");
    for page in pages {
        let (code, text) = curl(&["--header", &header, &format!("http://{address}{page}")]);
        assert!(code != 401 && code != 0, "{page}: {text}");
        assert!(!text.contains("hunter"), "{page}: {text}");
    }
}

#[tokio::test]
async fn no_page_shows_a_secret() {
    let folder = TempDir::new().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "hunter-pages").expect("the file is written");
    let token_name = token.display().to_string();
    let cluster = [
        "--cluster",
        "nats://r:hunter-route@127.0.0.1:-1",
        "--routes",
        "nats://r:hunter-route@127.0.0.1:1",
    ];
    let user = ["--user", "u", "--pass", "hunter-user"];
    let credentials = r#""user":"u","pass":"hunter-user","auth_token":"hunter-token""#;
    for access in [&user[..], &["--auth", "hunter-token"]] {
        let environment = [
            ("STANDIN_HTTP_TOKEN_FILE", token_name.as_str()),
            ("STANDIN_CLUSTER_SYNC_TIMEOUT_MS", "100"),
        ];
        let node = Node::start_in(ServerKind::Standin, &[access, &cluster].concat(), &environment).await;
        let mut client = RawClient::connect(node.address()).await;
        client
            .send(format!(
                "CONNECT {{\"verbose\":false,{credentials}}}\r\nSUB a 1\r\n"
            ))
            .await;
        client.flush().await;
        let url = match access {
            ["--user", ..] => format!("nats://u:hunter-user@{}", node.address()),
            _ => format!("nats://hunter-token@{}", node.address()),
        };
        let sidecar = Sidecar::builder()
            .upstream([url, "nats://u:hunter-gone@127.0.0.1:1".to_owned()])
            .setting("nodes.zookeeper", "127.0.0.1:1")
            .setting("nodes.zookeeper_auth", "zk:hunter-zookeeper")
            .setting("http.token_file", token_name.clone())
            .start_listening()
            .await;
        let mut component = RawClient::connect(sidecar.address()).await;
        component.send("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n").await;
        component.flush().await;
        assert_no_secret(node.http().address, &token, &BROKER_PAGES);
        assert_no_secret(sidecar.http().address, &token, &SIDECAR_PAGES);
        // Clients that are closed stay on the page.
        client.close().await;
        assert_no_secret(node.http().address, &token, &BROKER_PAGES);
    }
}
