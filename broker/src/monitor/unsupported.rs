//! The pages of unsupported features: gateways, leaf nodes and JetStream. Their content is that of a `nats-server` without these
//! features, so that monitors that request them do not fail.

use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::{Pages, json as page_of, time};

/// Returns a page with the fields that every page begins with, followed by `fields`.
pub(super) fn page(pages: &Pages, fields: Value) -> Response {
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
