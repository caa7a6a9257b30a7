//! Tests of the sources other than ZooKeeper: DNS with a scripted server, fixed addresses, nodes named in INFO, and the cache file.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::zk::{until, until_health};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use standin_registry::{Config, Credentials, Node, Snapshot, Source, SourceState, Upstream, Watch, watch};
use tokio::net::UdpSocket;

/// Answer of the DNS server to a question.
#[derive(Clone)]
enum Script {
    Records(u32, Vec<RData>),
    NoSuchName,
    Failure,
    Silence,
}

/// A DNS server on the loopback.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<HashMap<(String, RecordType), Script>>>,
    questions: Arc<Mutex<Vec<(Instant, RecordType)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let script: Arc<Mutex<HashMap<(String, RecordType), Script>>> = Arc::default();
        let questions: Arc<Mutex<Vec<(Instant, RecordType)>>> = Arc::default();
        let (scripts, asked) = (Arc::clone(&script), Arc::clone(&questions));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                asked.lock().unwrap().push((Instant::now(), query.query_type()));
                let key = (
                    query.name().to_utf8().trim_end_matches('.').to_owned(),
                    query.query_type(),
                );
                let script = scripts.lock().unwrap().get(&key).cloned();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                answer.metadata.recursion_available = true;
                match script.unwrap_or(Script::Records(60, vec![])) {
                    Script::Silence => continue,
                    Script::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
                    Script::Failure => answer.metadata.response_code = ResponseCode::ServFail,
                    Script::Records(ttl, records) => {
                        let name = query.name().clone();
                        answer.add_answers(
                            records
                                .into_iter()
                                .map(|data| Record::from_rdata(name.clone(), ttl, data)),
                        );
                    }
                }
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        Self {
            address,
            script,
            questions,
            task,
        }
    }

    fn answers(&self, name: &str, kind: RecordType, script: Script) {
        let mut scripts = self.script.lock().unwrap();
        scripts.insert((name.to_owned(), kind), script);
    }

    fn a(&self, ttl: u32, addresses: &[[u8; 4]]) {
        let record = |bytes: &[u8; 4]| RData::A(A(Ipv4Addr::from(*bytes)));
        let records = addresses.iter().map(record).collect();
        self.answers("nats.test", RecordType::A, Script::Records(ttl, records));
    }

    fn aaaa(&self, script: Script) {
        self.answers("nats.test", RecordType::AAAA, script);
    }

    fn config(&self, name: &str) -> Config {
        Config {
            dns: vec![name.parse().unwrap()],
            dns_server: Some(self.address),
            dns_refresh_ms: 1_000,
            ..Config::default()
        }
    }

    fn watch(&self, name: &str) -> Watch {
        watch(self.config(name)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ids(nodes: &[Arc<Node>]) -> Vec<String> {
    nodes.iter().map(|node| node.id.to_string()).collect()
}

type List = fn(&Snapshot) -> &Vec<Arc<Node>>;

const LIVE: List = |snapshot| &snapshot.live;
const FIXED: List = |snapshot| &snapshot.fixed;

/// Waits until a list of the snapshot has these nodes, in this order.
async fn until_ids(watch: &Watch, list: List, wanted: &[&str]) {
    until(watch, &format!("{wanted:?}"), |snapshot| {
        ids(list(snapshot)) == wanted
    })
    .await;
}

#[tokio::test]
async fn each_address_of_a_name_is_a_node_and_changes_are_seen() {
    let server = Server::start().await;
    server.a(60, &[[10, 0, 0, 2], [10, 0, 0, 1]]);
    let v6 = RData::AAAA(AAAA(Ipv6Addr::LOCALHOST));
    server.aaaa(Script::Records(60, vec![v6]));
    let watch = server.watch("nats.test:4222");
    until_ids(&watch, LIVE, &["10.0.0.1:4222", "10.0.0.2:4222", "[::1]:4222"]).await;
    assert_eq!(watch.snapshot().live[0].source, Source::Dns);
    let generation = watch.snapshot().generation;

    // Another order of the addresses is not a change. A missing address is.
    server.a(60, &[[10, 0, 0, 1], [10, 0, 0, 2]]);
    server.aaaa(Script::Records(60, vec![]));
    until_ids(&watch, LIVE, &["10.0.0.1:4222", "10.0.0.2:4222"]).await;
    assert_eq!(watch.snapshot().generation, generation + 1);
}

#[tokio::test]
async fn addresses_of_one_type_are_kept_if_only_their_lookup_fails() {
    let server = Server::start().await;
    server.a(60, &[[10, 0, 0, 1]]);
    server.aaaa(Script::Records(60, vec![RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))]));
    let watch = server.watch("nats.test:4222");
    until_ids(&watch, LIVE, &["10.0.0.1:4222", "[::1]:4222"]).await;
    for (script, last) in [(Script::Failure, 2), (Script::Silence, 3)] {
        server.aaaa(script);
        server.a(60, &[[10, 0, 0, last]]);
        until_ids(&watch, LIVE, &[&format!("10.0.0.{last}:4222"), "[::1]:4222"]).await;
    }
    server.aaaa(Script::Records(60, vec![]));
    until_ids(&watch, LIVE, &["10.0.0.3:4222"]).await;
}

#[tokio::test]
async fn addresses_of_one_type_are_used_although_the_lookup_of_the_other_is_not_answered() {
    let server = Server::start().await;
    server.a(60, &[[10, 0, 0, 1]]);
    server.aaaa(Script::Silence);
    let watch = server.watch("nats.test:4222");
    until_ids(&watch, LIVE, &["10.0.0.1:4222"]).await;
}

#[tokio::test]
async fn a_failed_lookup_keeps_the_last_list() {
    let server = Server::start().await;
    server.a(60, &[[10, 0, 0, 1]]);
    let watch = server.watch("nats.test:4222");
    until_ids(&watch, LIVE, &["10.0.0.1:4222"]).await;
    for script in [Script::NoSuchName, Script::Records(60, vec![]), Script::Silence] {
        let errors = watch.health().dns[0].errors_total;
        server.answers("nats.test", RecordType::A, script.clone());
        server.aaaa(script);
        until_health(&watch, "the failure is reported", |health| {
            health.dns[0].errors_total > errors
        })
        .await;
        let health = watch.health();
        assert_eq!(health.state(Source::Dns), SourceState::Lost);
        assert!(health.dns[0].last_error.is_some());
        assert_eq!(ids(&watch.snapshot().live), ["10.0.0.1:4222"]);
    }
    server.aaaa(Script::Records(60, vec![]));
    server.a(60, &[[10, 0, 0, 9]]);
    until_ids(&watch, LIVE, &["10.0.0.9:4222"]).await;
    assert_eq!(watch.health().state(Source::Dns), SourceState::Healthy);
}

/// As with a headless service whose pods become unready one after another.
#[tokio::test]
async fn all_nodes_of_a_name_that_was_emptied_one_by_one_are_remembered() {
    let server = Server::start().await;
    let watch = server.watch("nats.test:4222");
    let addresses = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]];
    for left in [3, 2, 1] {
        server.a(1, &addresses[3 - left..]);
        until(&watch, "fewer", |snapshot| snapshot.live.len() == left).await;
        assert!(watch.snapshot().cached.is_empty());
    }
    server.answers("nats.test", RecordType::A, Script::NoSuchName);
    server.aaaa(Script::NoSuchName);
    until(&watch, "two cached", |snapshot| snapshot.cached.len() == 2).await;
    assert_eq!(ids(&watch.snapshot().live), ["10.0.0.3:4222"]);
    let mut cached = ids(&watch.snapshot().cached);
    cached.sort();
    assert_eq!(cached, ["10.0.0.1:4222", "10.0.0.2:4222"]);
}

#[tokio::test]
async fn srv_records_name_hosts_ports_and_weights() {
    let server = Server::start().await;
    let service =
        |weight, port, target: &str| RData::SRV(SRV::new(1, weight, port, Name::from_utf8(target).unwrap()));
    let records = vec![
        service(5, 4222, "n0.nats.test."),
        service(0, 4223, "n1.nats.test."),
    ];
    let script = Script::Records(60, records);
    server.answers("_nats._tcp.nats.test", RecordType::SRV, script);
    let watch = server.watch("_nats._tcp.nats.test");
    until_ids(&watch, LIVE, &["n0.nats.test:4222", "n1.nats.test:4223"]).await;
    let weights: Vec<u32> = watch.snapshot().live.iter().map(|node| node.weight).collect();
    assert_eq!(weights, [5, 1]);
    let other_port = server.watch("_nats._tcp.nats.test:9");
    until_ids(&other_port, LIVE, &["n0.nats.test:9", "n1.nats.test:9"]).await;
}

#[tokio::test]
async fn records_with_a_short_ttl_are_looked_up_sooner_but_at_most_once_a_second() {
    let server = Server::start().await;
    server.a(0, &[[10, 0, 0, 1]]);
    let watch = watch(Config {
        dns_refresh_ms: 60_000,
        ..server.config("nats.test:4222")
    });
    let watch = watch.unwrap();
    let asked = || -> Vec<Instant> {
        let questions = server.questions.lock().unwrap();
        let of_a = questions.iter().filter(|(_, kind)| *kind == RecordType::A);
        of_a.map(|(at, _)| *at).collect()
    };
    until_health(&watch, "three lookups", |_| asked().len() >= 3).await;
    let asked = asked();
    let mut pairs = asked.windows(2);
    let pause_min = Duration::from_millis(950);
    assert!(pairs.all(|pair| pair[1] - pair[0] >= pause_min), "{asked:?}");
}

#[tokio::test]
async fn the_system_resolver_resolves_a_name_in_the_hosts_file() {
    let config = Config {
        dns: vec!["localhost:4222".parse().unwrap()],
        ..Config::default()
    };
    let watch = watch(config).unwrap();
    until(&watch, "localhost", |snapshot| {
        ids(&snapshot.live).contains(&"127.0.0.1:4222".to_owned())
    })
    .await;
}

#[tokio::test]
async fn with_one_address_all_nodes_of_the_cluster_are_found() {
    let old: Upstream = "nats://u:p@old:4222".parse().unwrap();
    let config = Config {
        fixed: vec![old.clone()],
        ..Config::default()
    };
    let watch = watch(config.clone()).unwrap();
    assert_eq!(ids(&watch.snapshot().fixed), ["old:4222"], "known at once");
    let credentials = watch.snapshot().fixed[0].credentials.clone();
    let all = ["old:4222", "new:4222", "newer:4222"];
    watch.learned(&old.endpoint, credentials, &all.map(str::to_owned));
    until_ids(&watch, FIXED, &all).await;
    let snapshot = watch.snapshot();
    assert_eq!(snapshot.fixed[1].source, Source::Gossip);
    let wanted = Credentials {
        user: Some("u".into()),
        password: Some("p".into()),
        token: None,
    };
    assert_eq!(snapshot.fixed[1].credentials.as_deref(), Some(&wanted));
    // The configured node is named in the INFO too.
    assert_eq!(watch.health().gossip_nodes, 2);
    assert_eq!(watch.health().state(Source::Fixed), SourceState::Healthy);

    watch.learned(&snapshot.fixed[2].client, None, &["newer:4222".into()]);
    // The later INFO replaces the earlier one.
    until_ids(&watch, FIXED, &["old:4222", "newer:4222"]).await;
    let without = Config {
        gossip: false,
        ..config
    };
    watch.reconfigure(without).unwrap();
    until_ids(&watch, FIXED, &["old:4222"]).await;
}

/// The nodes of a cluster report at the same moment that a node has left.
#[tokio::test]
async fn of_infos_that_come_at_once_the_last_one_counts() {
    for _ in 0..10 {
        let config = Config {
            fixed: vec!["nats://a:1".parse().unwrap()],
            ..Config::default()
        };
        let watch = watch(config).unwrap();
        let learned = |from: &str, urls: &[&str]| {
            let urls: Vec<_> = urls.iter().map(ToString::to_string).collect();
            watch.learned(&from.parse().unwrap(), None, &urls);
        };
        learned("b:1", &["a:1", "gone:1"]);
        learned("a:1", &["a:1", "b:1"]);
        until_ids(&watch, FIXED, &["a:1", "b:1"]).await;
    }
}

#[tokio::test]
async fn the_cache_file_is_written_when_the_list_changes_and_at_most_once_a_second() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.json");
    server.a(60, &[[10, 0, 0, 1]]);
    let config = Config {
        cache_file: Some(path.clone()),
        ..server.config("nats.test:4222")
    };
    let watch = watch(config.clone()).unwrap();
    until_health(&watch, "written", |health| health.cache_writes_total == 1).await;
    let asked = server.questions.lock().unwrap().len();
    until_health(&watch, "further lookups", |_| {
        server.questions.lock().unwrap().len() >= asked + 4
    })
    .await;
    let writes = watch.health().cache_writes_total;
    assert_eq!(writes, 1, "an unchanged list is not written");
    for i in 0..100 {
        watch.remember_info(format!("{{\"client_id\":{i}}}"));
    }
    watch.remember_info("x".repeat(33 * 1024));
    let closing = watch.clone();
    closing.close().await;
    assert_eq!(watch.reconfigure(config.clone()).unwrap_err().kind(), "closed");
    let writes = watch.health().cache_writes_total;
    assert_eq!(writes, 2, "a hundred INFOs cause one write, of the last");

    server.task.abort();
    let cold = standin_registry::watch(config).unwrap();
    assert_eq!(ids(&cold.snapshot().cached), ["10.0.0.1:4222"]);
    assert_eq!(cold.remembered_info().as_deref(), Some("{\"client_id\":99}"));
}

#[tokio::test]
async fn a_failed_write_of_the_cache_file_is_retried() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.json");
    server.a(60, &[[10, 0, 0, 1]]);
    std::fs::create_dir(&path).unwrap();
    let config = Config {
        cache_file: Some(path.clone()),
        ..server.config("nats.test:4222")
    };
    let watch = watch(config).unwrap();
    until_health(&watch, "it cannot be written", |health| {
        let error = health.cache_error.as_deref();
        error.is_some_and(|error| error.contains("rename"))
    })
    .await;
    std::fs::remove_dir(&path).unwrap();
    until_health(&watch, "written", |health| health.cache_writes_total == 1).await;
    assert!(path.is_file() && watch.health().cache_error.is_none());
}

#[test]
fn a_watch_needs_a_tokio_runtime() {
    assert_eq!(watch(Config::default()).unwrap_err().kind(), "no_runtime");
}
