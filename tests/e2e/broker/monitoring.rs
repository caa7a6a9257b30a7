//! The monitoring pages: the same fields as those of real nats-server, and correct figures.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::http::Endpoint;
use e2e::raw::CONNECT_NEW;
use e2e::{Mesh, Node, Program, RawClient, ServerKind, TIMEOUT, eventually, peers};
use serde_json::Value;

/// Fields of `nats-server` that `standin-broker` does not have, because it lacks the feature.
const NOT_OURS: &[&str] = &[
    "/connz?subs=detail&auth=1&sort=subs connections[].name_tag",
    // Until a client has answered a PING, `nats-server` shows the time to its CONNECT.
    "/connz?state=closed connections[].rtt",
    "/varz config_digest",
    "/varz feature_flags",
    "/varz system_account",
    "/varz disk_io_wait_stats",
    "/accountz system_account",
    "/accountz?acc=$G system_account",
    "/accountz?acc=$G account_detail.imports",
    "/accountz?acc=$G account_detail.name_tag",
    "/accountz?acc=$G account_detail.sublist_stats",
    // `nats-server` has its own subscriptions in its system account.
    "/subsz?subs=1 subscriptions_list[].account",
    "/subsz?subs=1 subscriptions_list[].account_tag",
];

const PAGES: &[&str] = &[
    "/varz",
    "/connz?subs=1",
    "/connz?subs=detail&auth=1&sort=subs",
    "/connz?state=closed",
    "/subsz?subs=1",
    "/routez",
    "/gatewayz",
    "/leafz",
    "/accountz",
    "/accountz?acc=$G",
    "/accstatz",
    "/jsz",
    "/healthz",
];

/// Pages of a node in a mesh of two.
const PAGES_OF_TWO: &[&str] = &["/varz", "/routez", "/routez?subs=1", "/routez?subs=detail"];
const NOT_OURS_OF_TWO: &[&str] = &[
    // `standin-broker` has one connection to each peer, as `nats-server` has without a pool.
    "/varz cluster.pool_size",
    "/varz config_digest",
    "/varz feature_flags",
    "/varz system_account",
    "/varz disk_io_wait_stats",
    // `nats-server` has one more connection for each of its own accounts.
    "/routez routes[].account",
    "/routez?subs=1 routes[].account",
    "/routez?subs=detail routes[].account",
];

/// Connects a busy client and one that closes, and returns every field of every page with the type of its value.
async fn fields(kind: ServerKind) -> BTreeMap<String, &'static str> {
    let server = Node::start(kind, &["--user", "a", "--pass", "b"]).await;
    let mut client = RawClient::connect(server.address()).await;
    client
        .send(
            "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\",\"name\":\"n\",\"lang\":\"l\",\"version\":\"v\"}\r\n\
             SUB a 1\r\nSUB b.* q 2\r\nUNSUB 2 7\r\nPUB a 2\r\nhi\r\n",
        )
        .await;
    client.flush().await;
    let mut gone = RawClient::connect(server.address()).await;
    gone.send("CONNECT {\"user\":\"a\",\"pass\":\"b\",\"name\":\"gone\"}\r\n")
        .await;
    gone.flush().await;
    gone.close().await;
    let http = server.http();
    eventually("the client that left is listed as closed", TIMEOUT, async || {
        let page = http.get_json("/connz?state=closed").await;
        page.is_some_and(|page| page["connections"].as_array().is_some_and(|rows| rows.len() == 1))
    })
    .await;
    // The first PING, which measures the round-trip time, comes soon after CONNECT.
    eventually(
        "the round-trip time is measured",
        Duration::from_secs(10),
        async || {
            client.flush().await;
            let page = http.get_json("/connz").await;
            page.is_some_and(|page| page["connections"][0]["rtt"].is_string())
        },
    )
    .await;
    fields_of(http, PAGES, kind).await
}

async fn fields_of(http: &Endpoint, pages: &[&str], kind: ServerKind) -> BTreeMap<String, &'static str> {
    let mut fields = BTreeMap::new();
    for page in pages {
        let json = http.get_json(page).await;
        let json = json.unwrap_or_else(|| panic!("{kind:?}: {page} is not a page of JSON"));
        collect(page, "", &json, &mut fields);
    }
    fields
}

/// Returns the fields of a node in a mesh of two, after it has received messages from the other node.
async fn fields_of_two(kind: ServerKind) -> BTreeMap<String, &'static str> {
    let mesh = Mesh::start(kind, 2).await;
    let mut near = mesh.nodes[0].client().await;
    let mut far = mesh.nodes[1].client().await;
    for client in [&mut near, &mut far] {
        client.send("SUB a 1\r\nSUB b q 2\r\n").await;
        client.flush().await;
    }
    eventually("the interest has arrived", TIMEOUT, async || {
        far.publish("a", "hi").await;
        far.flush().await;
        mesh.nodes[0].messages_from_links().await > 0
    })
    .await;
    if kind == ServerKind::Standin {
        eventually(
            "each message from the other node had one recipient",
            TIMEOUT,
            async || {
                let page = mesh.nodes[0].http().get_json("/subsz").await;
                page.is_some_and(|page| page["avg_fanout"] == 1.0)
            },
        )
        .await;
    }
    fields_of(mesh.nodes[0].http(), PAGES_OF_TWO, kind).await
}

fn collect(page: &str, path: &str, value: &Value, fields: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        fields.insert(format!("{page} {path}"), kind);
    }
    let below = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match value {
        Value::Object(object) => object
            .iter()
            .for_each(|(name, value)| collect(page, &below(name), value, fields)),
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect(page, &format!("{path}[]"), item, fields)),
        _ => {}
    }
}

#[tokio::test]
async fn the_pages_have_the_fields_of_nats_server() {
    let (ours, theirs) = (
        fields(ServerKind::Standin).await,
        fields(ServerKind::NatsServer).await,
    );
    has_the_fields_of(&ours, &theirs, NOT_OURS);
}

#[tokio::test]
async fn the_pages_of_a_node_among_others_have_the_fields_of_nats_server() {
    let (ours, theirs) = tokio::join!(
        fields_of_two(ServerKind::Standin),
        fields_of_two(ServerKind::NatsServer)
    );
    has_the_fields_of(&ours, &theirs, NOT_OURS_OF_TWO);
}

type Fields = BTreeMap<String, &'static str>;

fn has_the_fields_of(ours: &Fields, theirs: &Fields, not_ours: &[&str]) {
    let is_exempt = |field: &str| {
        let is_below = |absent: &str, sign: &str| field.starts_with(&format!("{absent}{sign}"));
        let is_part_of = |absent: &str| field == absent || is_below(absent, ".") || is_below(absent, "[]");
        not_ours.iter().any(|absent| is_part_of(absent))
            // The counter of each requested page is not a field of the format.
            || field.contains("http_req_stats.")
    };
    let differing: Vec<String> = theirs
        .iter()
        .filter(|(field, kind)| !is_exempt(field) && ours.get(*field) != Some(kind))
        .map(|(field, kind)| format!("{field}: {kind}, not {:?}", ours.get(field)))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    for absent in not_ours {
        assert!(
            theirs.contains_key(*absent),
            "nats-server does not have {absent} either"
        );
        assert!(!ours.contains_key(*absent), "standin-broker has {absent} now");
    }
}

/// The structs are from Debian's Go package of `nats-server`. `nats-top` uses the same ones, and `prometheus-nats-exporter` has some with the
/// same fields.
#[tokio::test]
async fn the_pages_can_be_read_into_the_structs_of_go_monitors() {
    let mesh = Mesh::start(ServerKind::Standin, 2).await;
    let server = &mesh.nodes[0];
    let _other = mesh.nodes[1].subscriber("a").await;
    let mut client = RawClient::open(server.address()).await;
    client.send("SUB a 1\r\nSUB a.* q 2\r\nPUB a 2\r\nhi\r\n").await;
    client.flush().await;
    let mut monitor = Program::new(peers::folder().join("bin/monitor-go"))
        .arg(format!("http://{}", server.http().address))
        .start("monitor-go");
    for line in [
        "varz version 2.15.1 connections 1 in_msgs 1 out_msgs 2 in_bytes 2 out_bytes 4 subscriptions 3",
        "connz 1 client 1 subs 2 in_msgs 1 out_msgs 1 list [a a.*]",
        "subsz 3 subscriptions 3 listed",
        "routez 1",
        "route 1 from true in_msgs 0 out_msgs 1 in_bytes 0 out_bytes 2 subs 1",
        "accstatz $G conns 1 received 1 2 sent 2 4 slow 0",
        "healthz ok",
    ] {
        monitor.wait_for_line(line, TIMEOUT).await;
    }
    assert!(monitor.wait_for_end(TIMEOUT).await.success());
}

#[tokio::test]
async fn the_pages_and_metrics_show_the_right_numbers() {
    let server = Node::start(ServerKind::Standin, &[]).await;
    let http = server.http();
    let mut subscriber = RawClient::open(server.address()).await;
    subscriber.send("SUB a 1\r\nSUB a 2\r\nSUB b.> 3\r\n").await;
    subscriber.flush().await;
    let mut publisher = RawClient::open_with(server.address(), CONNECT_NEW).await;
    for _ in 0..100 {
        publisher.publish("a", "0123456789").await;
    }
    publisher
        .send("HPUB b.x 12 17\r\nNATS/1.0\r\n\r\nhello\r\n")
        .await;
    publisher.flush().await;
    let page = async |path: &str| http.get_json(path).await.unwrap_or_else(|| panic!("{path}"));
    eventually("all messages are counted", TIMEOUT, async || {
        page("/varz").await["in_msgs"] == 101
    })
    .await;
    let varz = page("/varz").await;
    assert_eq!(varz["in_bytes"], 1017);
    assert_eq!(varz["out_msgs"], 201);
    assert_eq!(varz["out_bytes"], 2017);
    assert_eq!(varz["connections"], 2);
    assert_eq!(varz["total_connections"], 2);
    assert_eq!(varz["subscriptions"], 3);
    assert!(varz["mem"].as_u64().is_some_and(|bytes| bytes > 1_000_000));
    let by_messages = page("/connz?sort=msgs_from").await;
    assert_eq!(by_messages["connections"][0]["in_msgs"], 101, "{by_messages}");
    assert_eq!(by_messages["connections"][1]["out_msgs"], 201, "{by_messages}");
    let second = page("/connz?offset=1&limit=1").await;
    assert_eq!(second["total"], 2);
    assert_eq!(second["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(second["connections"][0]["cid"], 2);
    assert_eq!(page("/connz?cid=1").await["connections"][0]["subscriptions"], 3);
    let tested = page("/subsz?subs=1&test=b.c.d").await;
    assert_eq!(tested["subscriptions_list"][0]["subject"], "b.>");
    assert_eq!(tested["subscriptions_list"].as_array().map(Vec::len), Some(1));
    let pages: Vec<Value> = [
        page("/subsz?subs=1&limit=2").await,
        page("/subsz?subs=1&offset=2").await,
    ]
    .into();
    let rows = pages
        .iter()
        .filter_map(|page| page["subscriptions_list"].as_array());
    let mut subjects: Vec<_> = rows.flatten().map(|row| row["subject"].to_string()).collect();
    subjects.sort();
    assert_eq!(subjects, ["\"a\"", "\"a\"", "\"b.>\""]);
    let (_, metrics) = http.get("/metrics").await.expect("metrics");
    for line in [
        "standin_broker_connections 2",
        "standin_broker_subscriptions 3",
        "standin_broker_messages_total{direction=\"in\"} 101",
        "standin_broker_messages_total{direction=\"out\"} 201",
        "standin_broker_bytes_total{direction=\"in\"} 1017",
    ] {
        assert!(
            metrics.lines().any(|have| have == line),
            "{line} is missing in\n{metrics}"
        );
    }

    publisher.close().await;
    subscriber.send("UNSUB 1\r\n").await;
    subscriber.flush().await;
    eventually(
        "one client remains, with two subscriptions",
        TIMEOUT,
        async || {
            let varz = page("/varz").await;
            varz["connections"] == 1 && varz["subscriptions"] == 2 && varz["out_msgs"] == 201
        },
    )
    .await;
    let closed = page("/connz?state=closed").await;
    assert_eq!(closed["connections"][0]["reason"], "Client Closed");
    assert_eq!(closed["connections"][0]["in_msgs"], 101);
    assert_eq!(page("/connz?state=all").await["total"], 2);
}

#[tokio::test]
async fn a_wrong_request_gets_a_reason() {
    let server = Node::start(ServerKind::Standin, &[]).await;
    for (path, code, text) in [
        ("/connz?sort=colour", 400, "must be one of"),
        ("/connz?limit=x", 400, "limit"),
        ("/connz?state=ajar", 400, "must be one of"),
        ("/connz?auth=perhaps", 400, "must be 1 or 0"),
        (
            "/subsz?subs=1&test=a.*",
            400,
            "must be a valid subject without wildcards",
        ),
        ("/nothing", 404, "no such page"),
    ] {
        let (status, body) = server.http().get(path).await.unwrap_or_default();
        assert_eq!(status, code, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

/// Unusual and wrong requests, which both servers must read in the same way.
const REQUESTS: &[&str] = &[
    "/routez?x=1",
    "/routez?limit=0",
    "/routez?subs=",
    "/routez?subs=x",
    "/routez?subs=2",
    "/connz?x=1",
    "/connz?limit=0",
    "/connz?limit=-1",
    "/connz?limit=",
    "/connz?limit=x",
    "/connz?limit=1&limit=2",
    "/connz?limit=2&offset=1",
    "/connz?offset=-1",
    "/connz?offset=",
    "/connz?offset=x",
    "/connz?offset=100",
    "/connz?state=OPEN",
    "/connz?state=Closed",
    "/connz?state=any",
    "/connz?state=",
    "/connz?state=ajar",
    "/connz?sort=",
    "/connz?sort=UPTIME",
    "/connz?sort=colour",
    "/connz?sort=uptime",
    "/connz?sort=start",
    "/connz?sort=cid",
    "/connz?sort=last",
    "/connz?sort=idle",
    "/connz?sort=subs",
    "/connz?sort=msgs_from",
    "/connz?sort=bytes_from",
    "/connz?sort=stop",
    "/connz?sort=reason",
    "/connz?sort=stop&state=closed",
    "/connz?sort=reason&state=closed",
    "/connz?subs=x",
    "/connz?subs=2",
    "/connz?subs=DETAIL",
    "/connz?auth=2",
    "/connz?auth=TRUE",
    "/connz?auth=",
    "/connz?cid=0",
    "/connz?cid=",
    "/connz?cid=x",
    "/connz?cid=-1",
    "/connz?cid=99999",
    "/connz?user=",
    "/subsz?x=1",
    "/subsz?limit=0&subs=1",
    "/subsz?limit=-1&subs=1",
    "/subsz?limit=&subs=1",
    "/subsz?limit=x",
    "/subsz?offset=-1&subs=1",
    "/subsz?offset=&subs=1",
    "/subsz?subs=x",
    "/subsz?test=a.*",
    "/subsz?subs=1&test=",
    "/accountz?acc=x",
    "/accountz?acc=$G",
    "/gatewayz?gw_name=x",
    "/leafz?subs=1",
    "/accstatz?unused=1",
    "/jsz?consumers=true",
    "/varz?x=1",
    "/healthz?js-enabled-only=true",
];

/// Returns the answer to each request as one text: its status code, offset, limit and total, and the names in its rows.
async fn answers(kind: ServerKind) -> Vec<String> {
    let server = Node::start(kind, &[]).await;
    let http = server.http();
    let mut clients = Vec::new();
    for (name, subs, messages) in [("n0", 1, 3), ("n1", 3, 1), ("n2", 2, 2)] {
        let connect = format!("CONNECT {{\"verbose\":false,\"name\":\"{name}\"}}");
        let mut client = RawClient::open_with(server.address(), &connect).await;
        for sid in 0..subs {
            client.subscribe(&format!("nobody.{sid}"), &sid.to_string()).await;
        }
        for _ in 0..messages {
            client.publish("x", name).await;
        }
        client.flush().await;
        clients.push(client);
    }
    for name in ["gone0", "gone1"] {
        let connect = format!("CONNECT {{\"verbose\":false,\"name\":\"{name}\"}}");
        let gone = RawClient::open_with(server.address(), &connect).await;
        gone.close().await;
        eventually("the client is listed as closed", TIMEOUT, async || {
            let page = http.get_json("/connz?state=closed").await.unwrap_or_default();
            let rows = page["connections"].as_array().cloned().unwrap_or_default();
            rows.iter().any(|row| row["name"] == name)
        })
        .await;
    }
    let mut answers = Vec::new();
    for path in REQUESTS {
        let (code, body) = http.get(path).await.unwrap_or_default();
        let page: Value = serde_json::from_str(&body).unwrap_or_default();
        let rows = page["connections"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        let lists = |name: &str| rows.iter().filter(|row| row[name].is_array()).count();
        let total = if path.starts_with("/connz") {
            page["total"].to_string()
        } else {
            String::new()
        };
        answers.push(format!(
            "{path}: {code} offset {} limit {} total {total} rows {names:?} lists {} {}",
            page["offset"],
            page["limit"],
            lists("subscriptions_list"),
            lists("subscriptions_list_detail"),
        ));
    }
    answers
}

#[tokio::test]
async fn unusual_requests_have_the_same_meaning_as_on_nats_server() {
    let (ours, theirs) = tokio::join!(answers(ServerKind::Standin), answers(ServerKind::NatsServer));
    let differing: Vec<_> = ours
        .iter()
        .zip(&theirs)
        .filter(|(ours, theirs)| ours != theirs)
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

/// Parses `409µs`, `1.5ms` or `1s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("µs", 1.0), ("ms", 1e3), ("ns", 1e-3), ("s", 1e6)];
    let (number, unit) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

/// The measured times differ between two servers, so the test compares only the order.
#[tokio::test]
async fn connz_sorted_by_rtt_has_the_longest_time_first_on_both_servers() {
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let server = Node::start(kind, &[]).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut client = RawClient::open(server.address()).await;
            client.answer_pings();
            clients.push(client);
        }
        let mut last = Vec::new();
        eventually(
            "all round-trip times are measured, and differ",
            TIMEOUT,
            async || {
                for client in &mut clients {
                    client.flush().await;
                }
                let page = server
                    .http()
                    .get_json("/connz?sort=rtt")
                    .await
                    .unwrap_or_default();
                let rows = page["connections"].as_array().cloned().unwrap_or_default();
                let rtt = |row: &Value| microseconds(row["rtt"].as_str()?);
                last = rows.iter().filter_map(rtt).collect();
                last.len() == 6 && last.first() != last.last()
            },
        )
        .await;
        assert!(last.is_sorted_by(|one, next| one >= next), "{kind:?}: {last:?}");
    }
}
