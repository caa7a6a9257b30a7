//! The pages for people and monitors: the same fields as real nats-server's, and figures that are true.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::raw::CONNECT_NEW;
use e2e::{Maker, PATIENCE, Program, RawClient, Server, eventually, peers};
use serde_json::Value;

/// What real nats-server tells and ours does not, because it has nothing of the kind.
const NOT_OURS: &[&str] = &[
    // Of an account of its own.
    "/connz?subs=detail&auth=1&sort=subs connections[].name_tag",
    "/varz config_digest",
    "/varz feature_flags",
    "/varz system_account",
    "/varz disk_io_wait_stats",
    "/subsz?subs=1 num_cache",
    // It has subscriptions of its own, of an account of its own.
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
    "/healthz",
];

/// One client with a past and one that is gone, then every field of every page with the type of its value.
async fn fields(maker: Maker) -> BTreeMap<String, &'static str> {
    let server = Server::start(maker, &["--user", "a", "--pass", "b"]).await;
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
    eventually("the client that left is listed as closed", PATIENCE, async || {
        let page = http.get_json("/connz?state=closed").await;
        page.is_some_and(|page| page["connections"].as_array().is_some_and(|rows| rows.len() == 1))
    })
    .await;
    // The first PING, which measures the way, comes by itself soon after CONNECT.
    eventually(
        "the way there and back is measured",
        Duration::from_secs(10),
        async || {
            client.flush().await;
            let page = http.get_json("/connz").await;
            page.is_some_and(|page| page["connections"][0]["rtt"].is_string())
        },
    )
    .await;
    let mut fields = BTreeMap::new();
    for page in PAGES {
        let json = http.get_json(page).await;
        let json = json.unwrap_or_else(|| panic!("{maker:?}: {page} is no page of JSON"));
        collect(page, "", &json, &mut fields);
    }
    fields
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
    let (ours, theirs) = (fields(Maker::Ours).await, fields(Maker::Nats).await);
    let is_ours_to_leave = |field: &str| {
        let left = |left: &str| field == left || field.starts_with(&format!("{left}."));
        // How often each page was asked for is not a field of its own.
        NOT_OURS.iter().any(|field| left(field))
            || field.contains("http_req_stats.")
            || field.ends_with("[].rtt")
    };
    let differing: Vec<String> = theirs
        .iter()
        .filter(|(field, kind)| !is_ours_to_leave(field) && ours.get(*field) != Some(kind))
        .map(|(field, kind)| format!("{field}: {kind}, not {:?}", ours.get(field)))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    for left in NOT_OURS {
        assert!(theirs.contains_key(*left), "{left} is not nats-server's either");
        assert!(!ours.contains_key(*left), "{left} is ours after all");
    }
}

/// The structs that `nats-top` and exporters read the pages into, from the Go package of the server that Debian has.
#[tokio::test]
async fn monitors_in_go_read_the_pages() {
    let server = Server::start(Maker::Ours, &[]).await;
    let mut client = RawClient::open(server.address()).await;
    client.send("SUB a 1\r\nSUB a.* q 2\r\nPUB a 2\r\nhi\r\n").await;
    client.flush().await;
    let mut monitor = Program::new(peers::folder().join("bin/monitor-go"))
        .arg(format!("http://{}", server.http().address))
        .start("monitor-go");
    for line in [
        "varz version 2.15.1 connections 1 in_msgs 1 out_msgs 1 in_bytes 2 out_bytes 2 subscriptions 2",
        "connz 1 client 1 subs 2 in_msgs 1 out_msgs 1 list [a a.*]",
        "subsz 2 subscriptions 2 listed",
        "routez 0",
    ] {
        monitor.wait_for_line(line, PATIENCE).await;
    }
    assert!(monitor.wait_for_end(PATIENCE).await.success());
}

#[tokio::test]
async fn the_figures_are_true() {
    let server = Server::start(Maker::Ours, &[]).await;
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
    eventually("all is counted", PATIENCE, async || {
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
    eventually("one left, with two subscriptions", PATIENCE, async || {
        let varz = page("/varz").await;
        varz["connections"] == 1 && varz["subscriptions"] == 2 && varz["out_msgs"] == 201
    })
    .await;
    let closed = page("/connz?state=closed").await;
    assert_eq!(closed["connections"][0]["reason"], "Client Closed");
    assert_eq!(closed["connections"][0]["in_msgs"], 101);
    assert_eq!(page("/connz?state=all").await["total"], 2);
}

#[tokio::test]
async fn what_cannot_be_asked_is_told() {
    let server = Server::start(Maker::Ours, &[]).await;
    for (path, code, text) in [
        ("/connz?sort=colour", 400, "expected one of"),
        ("/connz?limit=x", 400, "limit"),
        ("/connz?state=ajar", 400, "expected one of"),
        ("/connz?auth=perhaps", 400, "neither 1 nor 0"),
        ("/subsz?subs=1&test=a.*", 400, "give one that can be published to"),
        ("/nothing", 404, "no such page"),
    ] {
        let (status, body) = server.http().get(path).await.unwrap_or_default();
        assert_eq!(status, code, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}
