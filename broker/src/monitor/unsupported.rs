//! The pages of unsupported features: gateways, leaf nodes, JetStream, and accounts other than the global one. Their content is that of a
//! `nats-server` without these features, so that monitors that request them do not fail.

use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::query::{BadRequest, Query};
use super::{Pages, json as page_of, time};
use crate::close_reason::CloseReason;

/// The account of all clients: the global account of `nats-server`.
const GLOBAL: &str = "$G";

/// Returns a page with the fields that every page begins with, followed by `fields`.
fn page(pages: &Pages, fields: Value) -> Response {
    let mut page = json!({
        "server_id": pages.shared.server_id,
        "now": time(SystemTime::now()),
    });
    if let (Some(page), Value::Object(fields)) = (page.as_object_mut(), fields) {
        page.extend(fields);
    }
    page_of(&page)
}

pub(super) async fn gateways(State(pages): State<Pages>) -> Response {
    page(&pages, json!({ "outbound_gateways": {}, "inbound_gateways": {} }))
}

pub(super) async fn leaf_nodes(State(pages): State<Pages>) -> Response {
    page(&pages, json!({ "leafnodes": 0, "leafs": [] }))
}

pub(super) async fn jetstream(State(pages): State<Pages>) -> Response {
    let fields = json!({
        "disabled": true,
        "config": { "max_memory": 0, "max_storage": 0 },
        "memory": 0, "storage": 0, "reserved_memory": 0, "reserved_storage": 0, "accounts": 0, "ha_assets": 0,
        "api": { "level": 0, "total": 0, "errors": 0 },
        "streams": 0, "consumers": 0, "messages": 0, "bytes": 0, "total": 0,
    });
    page(&pages, fields)
}

pub(super) async fn accounts(State(pages): State<Pages>, query: Query) -> Result<Response, BadRequest> {
    let shared = &pages.shared;
    match query.text("acc") {
        "" => Ok(page(&pages, json!({ "accounts": [GLOBAL] }))),
        GLOBAL => {
            let detail = json!({
                "account_name": GLOBAL,
                "update_time": time(shared.started_at),
                "expired": false,
                "complete": true,
                "jetstream_enabled": false,
                "leafnode_connections": 0,
                "client_connections": shared.clients.len(),
                "subscriptions": shared.interest.local.len() + shared.interest.remote.len(),
            });
            Ok(page(&pages, json!({ "account_detail": detail })))
        }
        other => Err(BadRequest(format!("Account {other} does not exist"))),
    }
}

pub(super) async fn account_stats(State(pages): State<Pages>) -> Response {
    let shared = &pages.shared;
    let clients = shared.clients.totals();
    let routes = shared.interest.routes.totals();
    let counts = |messages: u64, bytes: u64, over_routes: (u64, u64)| {
        let none = json!({ "msgs": 0, "bytes": 0 });
        json!({
            "msgs": messages,
            "bytes": bytes,
            "gateways": none,
            "routes": { "msgs": over_routes.0, "bytes": over_routes.1 },
            "leafs": none,
        })
    };
    let slow = [
        CloseReason::SlowConsumerPending,
        CloseReason::SlowConsumerDeadline,
    ];
    let slow: u64 = slow.iter().map(|reason| clients.ended[reason.kind()]).sum();
    let account = json!({
        "acc": GLOBAL,
        "name": GLOBAL,
        "conns": shared.clients.len(),
        "leafnodes": 0,
        "total_conns": shared.clients.len(),
        "num_subscriptions": shared.interest.local.len() + shared.interest.remote.len(),
        "sent": counts(
            clients.messages_out + routes.messages_out,
            clients.bytes_out + routes.bytes_out,
            (routes.messages_out, routes.bytes_out),
        ),
        "received": counts(
            clients.messages_in + routes.messages_in,
            clients.bytes_in + routes.bytes_in,
            (routes.messages_in, routes.bytes_in),
        ),
        "slow_consumers": slow,
    });
    page(&pages, json!({ "account_statz": [account] }))
}
