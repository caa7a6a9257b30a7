//! Tests of the pages over a real socket on loopback.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const SESSIONS: usize = 250;
const PAGE_ITEMS_MAX: usize = 120;

/// The status of a sidecar, set by the test.
#[derive(Default)]
struct Scripted {
    listening: AtomicBool,
    shutting_down: AtomicBool,
    nodes: AtomicUsize,
    proved: AtomicUsize,
    needs_node: AtomicBool,
    scrapes: AtomicUsize,
}

impl Status for Scripted {
    fn listening(&self) -> bool {
        self.listening.load(Ordering::SeqCst)
    }
    fn shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
    }
    fn nodes(&self) -> Vec<NodeRow> {
        let node = |at| NodeRow {
            id: format!("n{at}"),
            source: "fixed",
            state: "up",
            weight: 1,
            ..NodeRow::default()
        };
        (0..self.nodes.load(Ordering::SeqCst)).map(node).collect()
    }
    fn reachability(&self) -> Reachability {
        let proved = self.proved.load(Ordering::SeqCst);
        Reachability {
            known: self.nodes.load(Ordering::SeqCst),
            proved,
            none_for: (proved == 0).then_some(Duration::from_secs(7)),
            last_error: Some("cannot connect".to_owned()),
        }
    }
    fn ready_needs_node(&self) -> bool {
        self.needs_node.load(Ordering::SeqCst)
    }
    fn sessions(&self, offset: usize, limit: usize) -> Sessions<'_> {
        let rows = (1..=SESSIONS as u64).skip(offset).take(limit);
        let rows = rows
            .map(|id| SessionRow {
                id,
                state: "flowing",
                ..SessionRow::default()
            })
            .collect();
        Box::pin(async move { (SESSIONS, rows) })
    }
    fn before_scrape(&self) {
        self.scrapes.fetch_add(1, Ordering::SeqCst);
    }
    fn page_items_max(&self) -> usize {
        PAGE_ITEMS_MAX
    }
}

struct TestServer {
    address: SocketAddr,
    status: Arc<Scripted>,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serving() -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (status, metrics) = (Arc::new(Scripted::default()), Arc::new(Metrics::new()));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, status.clone(), metrics.clone(), async {
        drop(stopped.await)
    }));
    TestServer {
        address,
        status,
        metrics,
        stop,
        task,
    }
}

impl TestServer {
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
async fn healthz_is_200_until_shutdown_and_with_nodes_only_while_a_node_is_reachable() {
    let served = serving().await;
    assert_eq!(served.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(
        served.get("/healthz?nodes=1").await,
        (503, "no node known from any source\n".to_owned())
    );
    served.status.nodes.store(2, Ordering::SeqCst);
    assert_eq!(
        served.get("/healthz?nodes=1").await,
        (
            503,
            "no node reachable for 7 s: 2 known, cannot connect\n".to_owned()
        )
    );
    served.status.proved.store(1, Ordering::SeqCst);
    assert_eq!(served.get("/healthz?nodes=1").await, (200, "ok\n".to_owned()));
    for query in ["nodes=2", "nodes=yes", "node=1"] {
        assert_eq!(served.get(&format!("/healthz?{query}")).await.0, 400, "{query}");
    }
    served.status.shutting_down.store(true, Ordering::SeqCst);
    assert_eq!(served.get("/healthz").await, (503, "shutting down\n".to_owned()));
}

#[tokio::test]
async fn readyz_is_200_when_components_can_connect_also_in_an_outage() {
    let served = serving().await;
    let (code, body) = served.get("/readyz").await;
    assert_eq!(code, 503);
    let reasons: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        reasons["reasons"],
        serde_json::json!(["not listening for components"])
    );
    served.status.listening.store(true, Ordering::SeqCst);
    served.status.nodes.store(2, Ordering::SeqCst);
    assert_eq!(
        served.json("/readyz").await,
        serde_json::json!({"ready": true, "nodes": 2, "nodes_proved": 0, "no_node_secs": 7, "reasons": []})
    );
    served.status.needs_node.store(true, Ordering::SeqCst);
    let (code, body) = served.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(
        body.contains("no node reachable for 7 s: 2 known, cannot connect"),
        "{body}"
    );
    served.status.proved.store(1, Ordering::SeqCst);
    assert_eq!(
        served.json("/readyz").await,
        serde_json::json!({"ready": true, "nodes": 2, "nodes_proved": 1, "no_node_secs": null, "reasons": []})
    );
    served.status.shutting_down.store(true, Ordering::SeqCst);
    assert_eq!(served.get("/readyz").await.0, 503);
}

#[tokio::test]
async fn gauges_are_updated_before_each_scrape() {
    let served = serving().await;
    served.metrics.sessions.set(3);
    let (code, body) = served.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("\nstandin_sessions 3\n"), "{body}");
    assert_eq!(served.status.scrapes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn lists_are_paged_and_a_page_has_a_limit() {
    let served = serving().await;
    served.status.nodes.store(7, Ordering::SeqCst);
    let page = served.json("/sessionz").await;
    assert_eq!(
        (page["total"].as_u64(), page["items"].as_array().unwrap().len()),
        (Some(250), 100)
    );
    let page = served.json("/sessionz?offset=200&limit=100000").await;
    assert_eq!(
        (page["limit"].as_u64(), page["items"].as_array().unwrap().len()),
        (Some(120), 50)
    );
    assert_eq!(page["items"][0]["id"], 201);
    let page = served.json("/nodez?offset=5&limit=1").await;
    assert_eq!(
        (page["total"].as_u64(), page["items"].as_array().unwrap().len()),
        (Some(7), 1)
    );
    assert_eq!(page["items"][0]["id"], "n5");
    assert_eq!(
        served.json("/nodez?offset=99").await["items"],
        serde_json::json!([])
    );
    for query in ["offset=-1", "limit=many", "page=2"] {
        let (code, body) = served.get(&format!("/sessionz?{query}")).await;
        assert_eq!(code, 400, "{query}");
        assert!(body.contains("give ?offset=N&limit=N"), "{body}");
    }
}

#[tokio::test]
async fn the_index_lists_every_page_and_other_paths_and_methods_are_refused() {
    let served = serving().await;
    let (code, index) = served.get("/").await;
    assert_eq!(code, 200);
    for page in ["/healthz", "/readyz", "/metrics", "/sessionz", "/nodez"] {
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
    served.stop.send(()).unwrap();
    timeout(DEADLINE, served.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
