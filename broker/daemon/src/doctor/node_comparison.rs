//! Properties that differ between nodes. A component whose session moves to another node sees such a property change, and does not
//! expect this.

use std::collections::BTreeMap;

use standin_wire::Info;

use super::report::Row;

/// A property that should be the same on all nodes.
struct Property {
    name: &'static str,
    value: fn(&Info) -> String,
    remedy: &'static str,
}

const PROPERTIES: &[Property] = &[
    Property {
        name: "version",
        value: |info| info.version.clone(),
        remedy: "none during an upgrade; else bring all nodes to one version",
    },
    Property {
        name: "max_payload",
        value: |info| info.max_payload.to_string(),
        remedy: "set the same max_payload on all nodes, else a message may pass on one and close the connection on another",
    },
    Property {
        name: "auth_required",
        value: |info| info.auth_required.to_string(),
        remedy: "give all nodes the same users",
    },
    Property {
        name: "headers",
        value: |info| info.headers.to_string(),
        remedy: "bring all nodes to a version with headers, else messages with headers are lost on some",
    },
    Property {
        name: "tls_required",
        value: |info| info.tls_required.to_string(),
        remedy: "give all nodes the same TLS settings",
    },
    Property {
        name: "cluster",
        value: |info| info.cluster.clone(),
        remedy: "register the nodes of different clusters below different paths: messages do not pass between them",
    },
];

/// Returns a row for each property that differs, or one row that says that none does; no row for fewer than two nodes. Each node is
/// given by its name and INFO.
#[must_use]
pub fn rows(nodes: &[(String, Info)]) -> Vec<Row> {
    const CHECK: &str = "nodes alike";
    if nodes.len() < 2 {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for property in PROPERTIES {
        let mut with: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (node, info) in nodes {
            with.entry((property.value)(info)).or_default().push(node.clone());
        }
        if with.len() > 1 {
            let values = with.iter().map(|(value, nodes)| {
                let value = if value.is_empty() { "none" } else { value };
                format!("{value} on {}", nodes.join(", "))
            });
            let found = values.collect::<Vec<_>>().join("; ");
            rows.push(Row::warn(CHECK, property.name, found, property.remedy));
        }
    }
    if rows.is_empty() {
        let names: Vec<&str> = PROPERTIES.iter().map(|property| property.name).collect();
        rows.push(Row::ok(CHECK, "", format!("same {}", names.join(", "))));
    }
    rows
}
