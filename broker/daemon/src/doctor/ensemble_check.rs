//! ZooKeeper: each server, whether all of them are one ensemble, the path, its ACL, and the records.

use std::collections::BTreeMap;
use std::time::Duration;

use standin_registry::{
    AllowedNodes, Endpoint, Examination, NodeState, RecordsExamination, ServerExamination,
};

use super::report::Row;

const SERVER: &str = "zookeeper server";
const ENSEMBLE: &str = "zookeeper ensemble";
const PATH: &str = "zookeeper path";
const ACL: &str = "zookeeper acl";
const RECORD: &str = "zookeeper record";

/// A DNS lookup that takes this long or longer gets a warning.
const LOOKUP_SLOW: Duration = Duration::from_secs(1);

/// Returns the rows about an ensemble. With `needs_nodes`, a missing path and a path without a registered node are failures. Otherwise they
/// are not, because the node that is checked does not run yet and may be the first.
#[must_use]
pub fn rows(found: &Examination, allowed: &AllowedNodes, needs_nodes: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for host in &found.hosts {
        if host.host.ip().is_none() {
            let servers = host.servers.as_ref().map(|servers| {
                let addresses = servers.iter().map(|server| server.address.ip().to_string());
                addresses.collect::<Vec<_>>().join(", ")
            });
            rows.push(name(&host.host.host, servers.map_err(Clone::clone), host.lookup));
        }
        let servers = host.servers.iter().flatten();
        rows.extend(servers.map(|server| server_row(&host.host.to_string(), server)));
    }
    rows.extend(ensemble(found));
    rows.extend(path(found, needs_nodes));
    if let Some(records) = &found.records {
        rows.extend(record_rows(&found.path, records, allowed, needs_nodes));
    }
    rows
}

/// Returns the row about a name in DNS. `found` are its addresses.
#[must_use]
pub fn name(name: &str, found: Result<String, String>, took: Duration) -> Row {
    const CHECK: &str = "name";
    let millis = took.as_millis();
    match found {
        Err(reason) => Row::fail(
            CHECK,
            name,
            format!("not resolved after {millis} ms: {reason}"),
            "correct the name, or look at DNS (/etc/resolv.conf) and /etc/hosts",
        ),
        Ok(found) if took >= LOOKUP_SLOW => Row::warn(
            CHECK,
            name,
            format!("{found} after {millis} ms"),
            "DNS is slow: look at the servers in /etc/resolv.conf, one of them may be down",
        ),
        Ok(found) => Row::ok(CHECK, name, format!("{found} after {millis} ms")),
    }
}

fn server_row(host: &str, server: &ServerExamination) -> Row {
    let address = server.address.to_string();
    let subject = if address == host {
        address
    } else {
        format!("{host} ({address})")
    };
    match &server.session {
        Ok(took) => {
            let mode = server.mode.as_deref().unwrap_or("role unknown");
            Row::ok(
                SERVER,
                subject,
                format!("{mode}, session after {} ms", took.as_millis()),
            )
        }
        Err(reason) => Row::fail(SERVER, subject, reason, server_remedy(reason)),
    }
}

fn server_remedy(reason: &str) -> &'static str {
    if reason.contains("quorum") {
        "the ensemble has no majority of its servers, or this one is not part of it: start the others, and look at this server's log"
    } else if reason.contains("within") {
        "nothing answers: is the host up, and does a firewall on the way drop the packets?"
    } else if reason.contains("ZooKeeper server") {
        "another program listens there: correct nodes.zookeeper"
    } else {
        "start ZooKeeper there, or correct nodes.zookeeper"
    }
}

/// Returns the row about the roles of the servers: all must be one ensemble, or nodes and sidecars may not find each other.
fn ensemble(found: &Examination) -> Option<Row> {
    let servers: Vec<&ServerExamination> = found
        .hosts
        .iter()
        .flat_map(|host| host.servers.iter().flatten())
        .collect();
    let count = |mode: &str| {
        servers
            .iter()
            .filter(|server| server.mode.as_deref() == Some(mode))
            .count()
    };
    let with_session = servers.iter().filter(|server| server.session.is_ok()).count();
    // A name without an address stands for at least one server.
    let unresolved = found.hosts.iter().filter(|host| host.servers.is_err()).count();
    let all = format!("{with_session} of {} servers serve", servers.len() + unresolved);
    if with_session == 0 {
        let remedy = "see the rows above; until then nodes come only from sources other than ZooKeeper";
        return Some(Row::fail(ENSEMBLE, "", all, remedy));
    }
    let (alone, leaders) = (count("standalone"), count("leader"));
    // One server may have several addresses, so only different hosts are compared.
    if found.hosts.len() > 1 && (alone > 0 || leaders > 1) {
        let found = format!("{all}, {alone} standalone, {leaders} leaders");
        let remedy =
            "these servers are not one ensemble: name the servers of one ensemble in nodes.zookeeper";
        return Some(Row::fail(ENSEMBLE, "", found, remedy));
    }
    Some(Row::ok(ENSEMBLE, "", all))
}

fn path(found: &Examination, needs_nodes: bool) -> Option<Row> {
    let servers = found.hosts.iter().flat_map(|host| host.servers.iter().flatten());
    let answers: Vec<&Result<bool, String>> = servers.filter_map(|server| server.has_path.as_ref()).collect();
    let first = answers
        .iter()
        .find(|answer| ***answer == Ok(true))
        .or(answers.first())?;
    Some(match first {
        Ok(true) => Row::ok(PATH, &found.path, "exists"),
        Ok(false) if !needs_nodes => {
            Row::ok(PATH, &found.path, "does not exist yet: the first node creates it")
        }
        Ok(false) => Row::fail(
            PATH,
            &found.path,
            "does not exist",
            "start a node that registers there, or correct nodes.zookeeper_path and the chroot in nodes.zookeeper",
        ),
        Err(reason) => Row::fail(
            PATH,
            &found.path,
            reason,
            "set nodes.zookeeper_auth_file to credentials that the ACL of the path allows",
        ),
    })
}

fn record_rows(
    path: &str,
    records: &RecordsExamination,
    allowed: &AllowedNodes,
    needs_nodes: bool,
) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(reason) = &records.error {
        let remedy = "let the credentials of nodes.zookeeper_auth_file read the path and its children (getAcl in zkCli.sh)";
        rows.push(Row::fail(ACL, path, reason, remedy));
        return rows;
    }
    if let Some(open) = &records.open_permissions {
        let remedy = "everybody can register a node there: set the ACL of the path (setAcl in zkCli.sh), as deploy/security.md describes";
        rows.push(Row::warn(
            ACL,
            path,
            format!("everybody has these permissions: {open}"),
            remedy,
        ));
    } else {
        rows.push(Row::ok(ACL, path, "children can be listed"));
    }
    for (znode, reason) in &records.unreadable {
        let remedy =
            "correct or delete the znode, or let these credentials read it; until then this node is not used";
        rows.push(Row::fail(RECORD, znode, reason, remedy));
    }
    rows.extend(shared_addresses(records));
    let refused = records.nodes.iter().filter(|node| allowed.refuses(&node.client));
    rows.extend(refused.map(|node| {
        let found = format!("{} is refused by nodes.allowed_nodes", node.client);
        Row::warn(
            RECORD,
            &node.id,
            found,
            "add it to nodes.allowed_nodes, or delete the znode",
        )
    }));
    let draining = records
        .nodes
        .iter()
        .filter(|node| node.state == NodeState::Draining);
    rows.extend(draining.map(|node| {
        let found = format!("{} is draining and takes no new clients", node.client);
        Row::warn(
            RECORD,
            &node.id,
            found,
            "none if the node is about to be stopped or restarted",
        )
    }));
    if records.over_limit > 0 {
        let found = format!("{} records are ignored", records.over_limit);
        rows.push(Row::fail(
            RECORD,
            path,
            found,
            "raise nodes_max ([nodes] of the sidecar, [cluster] of a node), or delete stray znodes",
        ));
    }
    let found = format!("{} records can be read", records.nodes.len());
    rows.push(if records.nodes.is_empty() && needs_nodes {
        Row::fail(
            RECORD,
            path,
            found,
            "start a node that registers there, or correct nodes.zookeeper_path",
        )
    } else {
        Row::ok(RECORD, path, found)
    });
    rows
}

/// Returns a row for each address that several records have: there are fewer nodes than records.
fn shared_addresses(records: &RecordsExamination) -> Vec<Row> {
    let mut ids: BTreeMap<&Endpoint, Vec<&str>> = BTreeMap::new();
    for node in &records.nodes {
        ids.entry(&node.client).or_default().push(&node.id);
    }
    let shared = ids.into_iter().filter(|(_, ids)| ids.len() > 1);
    let row = |(address, ids): (&Endpoint, Vec<&str>)| {
        let found = format!("these records have the same address for clients, {address}");
        let remedy = "correct the address of all but one (advertise of a node; --node and --advertise of an agent), or delete their records";
        Row::warn(RECORD, ids.join(", "), found, remedy)
    };
    shared.map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use standin_registry::Node;

    use super::*;

    #[test]
    fn records_with_the_same_address_are_named() {
        let node = |id: &str, address: &str| Arc::new(Node::new(id, address.parse().unwrap()));
        let records = RecordsExamination {
            nodes: vec![
                node("n1", "10.0.0.1:4222"),
                node("n2", "10.0.0.1:4222"),
                node("n3", "10.0.0.3:4222"),
            ],
            unreadable: Vec::new(),
            over_limit: 0,
            open_permissions: None,
            error: None,
        };
        let rows = shared_addresses(&records);
        assert_eq!(rows.len(), 1, "{rows:?}");
        let text = format!("{rows:?}");
        assert!(
            text.contains("n1, n2") && text.contains("10.0.0.1:4222"),
            "{text}"
        );
    }
}
