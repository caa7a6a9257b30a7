//! Tests of the pages over a real socket on loopback. Each test sets the sidecar's state.

use std::net::SocketAddr;

use serde_json::{Value, json};
use standin_registry::{Node, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::policy::Policy;
use crate::session::tests::node;
use crate::settings::Settings;

const DEADLINE: Duration = Duration::from_secs(20);

struct TestServer {
    address: SocketAddr,
    shared: Arc<SidecarState>,
    task: JoinHandle<()>,
}

async fn serving() -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings::from_toml("http.page_items_max = 120\n").unwrap();
    let registry = standin_registry::watch(settings.registry_config().unwrap()).unwrap();
    let policy = Policy::new(&settings).unwrap();
    let shared = Arc::new(SidecarState::new(settings, policy, registry, &[], None));
    let (_, access) = watch::channel(PageAccess::default());
    let task = tokio::spawn(serve(listener, Arc::clone(&shared), access));
    TestServer {
        address,
        shared,
        task,
    }
}

impl TestServer {
    /// Adds `count` nodes that have failed. Returns the first of them.
    fn add_nodes(&self, count: usize) -> Arc<Node> {
        let nodes: Vec<Arc<Node>> = (0..count).map(|at| Arc::new(node(&format!("n{at}:1")))).collect();
        let snapshot = Snapshot {
            fixed: nodes.clone(),
            ..Snapshot::default()
        };
        let (book, now) = (&self.shared.book, Instant::now());
        book.take_snapshot(&snapshot, now);
        for node in &nodes {
            book.failed(node, "cannot connect", false, now);
        }
        Arc::clone(&nodes[0])
    }

    /// Sends `request` unchanged. Returns everything that the server sends before it closes the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        read.expect("the server did not close").unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Returns the status code and the body of a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        let (code, body) = self.get(path).await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn healthz_is_200_until_shutdown_and_with_nodes_1_only_while_a_node_is_reachable() {
    let served = serving().await;
    assert_eq!(served.get("/healthz").await, (200, "ok\n".to_owned()));
    let no_node = (503, "no node known from any source\n".to_owned());
    assert_eq!(served.get("/healthz?nodes=1").await, no_node);
    let node = served.add_nodes(2);
    let (code, body) = served.get("/healthz?nodes=1").await;
    assert_eq!(code, 503);
    assert!(body.starts_with("no node reachable for "), "{body}");
    assert!(body.ends_with(" s: 2 known, cannot connect\n"), "{body}");
    served.shared.book.proved(&node, Instant::now());
    assert_eq!(served.get("/healthz?nodes=1").await, (200, "ok\n".to_owned()));
    for query in ["nodes=2", "nodes=yes", "node=1"] {
        assert_eq!(served.get(&format!("/healthz?{query}")).await.0, 400, "{query}");
    }
    served.shared.stopping.store(true, Relaxed);
    let stopping = (503, "shutting down\n".to_owned());
    assert_eq!(served.get("/healthz").await, stopping);
}

#[tokio::test]
async fn readyz_is_200_when_components_can_connect_also_in_an_outage() {
    let served = serving().await;
    let (code, body) = served.get("/readyz").await;
    assert_eq!(code, 503);
    let reasons: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(reasons["reasons"], json!(["not listening for components"]));
    served.shared.listening.store(true, Relaxed);
    let node = served.add_nodes(2);
    let mut page = served.json("/readyz").await;
    assert!(page["no_node_secs"].take().is_u64(), "{page}");
    let ready = |proved| json!({"ready": true, "nodes": 2, "nodes_proved": proved, "no_node_secs": null, "reasons": []});
    assert_eq!(page, ready(0));
    let mut settings = Settings::clone(&served.shared.settings.load());
    settings.http.ready_needs_node = true;
    served.shared.settings.store(Arc::new(settings));
    let (code, body) = served.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains(" s: 2 known, cannot connect"), "{body}");
    served.shared.book.proved(&node, Instant::now());
    assert_eq!(served.json("/readyz").await, ready(1));
    served.shared.stopping.store(true, Relaxed);
    assert_eq!(served.get("/readyz").await.0, 503);
}

#[tokio::test]
async fn gauges_are_updated_before_each_scrape() {
    let served = serving().await;
    served.shared.metrics.sessions.set(3);
    let node = served.add_nodes(2);
    for (proved, lines) in [
        (
            false,
            [
                "standin_nodes_proved 0",
                "standin_nodes{state=\"cooling\",source=\"fixed\"} 2",
            ],
        ),
        (
            true,
            [
                "standin_nodes_proved 1",
                "standin_nodes{state=\"cooling\",source=\"fixed\"} 1",
            ],
        ),
    ] {
        if proved {
            served.shared.book.proved(&node, Instant::now());
        }
        let (code, body) = served.get("/metrics").await;
        assert_eq!(code, 200);
        for line in ["standin_sessions 3"].iter().chain(&lines) {
            assert!(
                body.lines().any(|have| have == *line),
                "{line} is missing in\n{body}"
            );
        }
    }
}

#[tokio::test]
async fn lists_are_paged_and_a_page_has_a_limit() {
    let served = serving().await;
    served.add_nodes(7);
    for id in 1..=250 {
        let session = SessionInfo::new(id, 0, served.address.into());
        served.shared.sessions.insert(Arc::new(session));
    }
    for (path, total, limit, ids) in [
        ("/sessionz", 250, 100, (1..=100).map(Value::from).collect()),
        (
            "/sessionz?offset=200&limit=100000",
            250,
            120,
            (201..=250).map(Value::from).collect(),
        ),
        ("/nodez?offset=5&limit=1", 7, 1, vec![json!("n5:1")]),
        ("/nodez?offset=99", 7, 100, vec![]),
    ] {
        let page = served.json(path).await;
        assert_eq!(
            (&page["total"], &page["limit"]),
            (&json!(total), &json!(limit)),
            "{path}"
        );
        let items = page["items"].as_array().unwrap().iter();
        assert_eq!(
            items.map(|item| item["id"].clone()).collect::<Vec<_>>(),
            ids,
            "{path}"
        );
    }
    for query in ["offset=-1", "limit=many", "page=2"] {
        let (code, body) = served.get(&format!("/sessionz?{query}")).await;
        assert_eq!(code, 400, "{query}");
        assert!(body.contains("give ?offset=N&limit=N"), "{body}");
    }
}

#[tokio::test]
async fn sessions_are_found_by_text_and_by_node() {
    let served = serving().await;
    let node = served.add_nodes(1);
    for id in 1..=30 {
        let component = SocketAddr::from(([10, 0, 0, id as u8], 4000));
        let session = SessionInfo::new(id, 0, component.into());
        let mut status = session.status();
        status.client.name = (id == 7).then(|| "<script>Router".to_owned());
        status.node = (id % 10 == 0).then(|| Arc::clone(&node));
        drop(status);
        served.shared.sessions.insert(Arc::new(session));
    }
    for (query, total, first) in [
        ("search=%3CSCRIPT%3E", 1, 7),
        ("search=10.0.0.12", 1, 12),
        ("search=12", 1, 12),
        ("search=n0:1", 3, 10),
        ("node=n0:1&offset=1", 3, 20),
        ("node=n0:1&search=10.0.0.3", 1, 30),
        ("node=n0", 0, 0),
    ] {
        let page = served.json(&format!("/sessionz?{query}")).await;
        let found = page["items"][0]["id"].as_u64().unwrap_or(0);
        assert_eq!((page["total"].as_u64(), found), (Some(total), first), "{query}");
    }
}

#[tokio::test]
async fn the_index_lists_every_page_and_other_paths_and_methods_are_refused() {
    let served = serving().await;
    let (code, index) = served.get("/").await;
    assert_eq!(code, 200);
    for page in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/varz",
        "/sessionz",
        "/nodez",
        "/movez",
    ] {
        assert!(index.contains(page), "{page}");
        assert_ne!(served.get(page).await.0, 404);
    }
    assert_eq!(served.get("/nothing").await.0, 404);
    let answer = served
        .raw("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn idle_connections_do_not_block_a_health_check() {
    let served = serving().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        idle.push(stream);
    }
    assert_eq!(timeout(DEADLINE, served.get("/healthz")).await.unwrap().0, 200);
}

#[tokio::test]
async fn an_endless_request_is_cut_off() {
    let served = serving().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let flood = async {
        while stream
            .write_all(b"X-More: and more and more and more\r\n")
            .await
            .is_ok()
        {}
    };
    timeout(DEADLINE, flood)
        .await
        .expect("the server did not stop reading");
}

#[tokio::test]
async fn shutdown_ends_the_pages_despite_open_connections() {
    let served = serving().await;
    let _open = TcpStream::connect(served.address).await.unwrap();
    served.task.abort();
    assert!(
        timeout(DEADLINE, served.task)
            .await
            .unwrap()
            .unwrap_err()
            .is_cancelled()
    );
    assert!(TcpStream::connect(served.address).await.is_err());
}
