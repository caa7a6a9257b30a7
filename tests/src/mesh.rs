//! A cluster of `standin-broker` or `nats-server` nodes. Tests change it node by node and wait for its state.
//!
//! The waits read the monitoring pages of the nodes (see [`links`](crate::links)).

use crate::condition::settled;
use crate::lan::Lan;
use crate::links::{Links, OwnInterest};
use crate::netns::Netns;
use crate::node::{Node, ServerKind};
use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::time::Duration;

/// Timeout for the routes and the interest of a mesh to be complete.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Means by which the nodes find each other.
#[derive(Clone, Debug)]
enum Joining {
    /// Each node has the addresses of all other nodes, except those added later.
    Routes,
    /// Each node has only the address of the first one, which tells it of the others.
    Seed,
    /// The nodes register in ZooKeeper.
    ZooKeeper { hosts: String },
}

/// Settings of a mesh that is not started yet.
#[derive(Clone, Debug)]
pub struct MeshBuilder {
    kind: ServerKind,
    size: usize,
    joining: Joining,
    flags: Vec<String>,
    settings: Vec<(String, String)>,
}

impl MeshBuilder {
    /// Adds these flags to every node. For the flags of one node, see [`Node::add_flags`].
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Sets a key of every node's settings, such as `cluster.ping_timeout_ms`. Only `standin-broker` has them.
    #[must_use]
    pub fn setting(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Gives every node only the address of the first one.
    #[must_use]
    pub fn seeded(mut self) -> Self {
        self.joining = Joining::Seed;
        self
    }

    /// Lets the nodes find each other through ZooKeeper only. Only `standin-broker` can do that.
    #[must_use]
    pub fn zookeeper(mut self, hosts: impl Into<String>) -> Self {
        assert_eq!(
            self.kind,
            ServerKind::Standin,
            "only standin-broker uses ZooKeeper"
        );
        self.joining = Joining::ZooKeeper { hosts: hosts.into() };
        self
    }

    /// Returns the mesh without starting a node.
    pub fn describe(self) -> Mesh {
        self.described(|_| None)
    }

    /// Starts all nodes at once and waits until every node has a route to every other one.
    pub async fn start(self) -> Mesh {
        let mut mesh = self.describe();
        mesh.start_all().await;
        mesh
    }

    /// Starts as [`start`](Self::start) does, with node 0 on host 0 of this network, and so on.
    pub async fn start_across(self, lan: &Lan) -> Mesh {
        let mut mesh = self.described(|index| Some(lan.host(index)));
        mesh.start_all().await;
        mesh
    }

    fn described<'a>(self, netns: impl Fn(usize) -> Option<&'a Netns>) -> Mesh {
        let size = self.size;
        let mut mesh = Mesh {
            nodes: Vec::new(),
            given: self,
        };
        for index in 0..size {
            mesh.describe_one(netns(index));
        }
        for index in 0..size {
            mesh.introduce(index);
        }
        mesh
    }
}

/// A mesh of nodes 0, 1, …
#[derive(Debug)]
pub struct Mesh {
    /// The nodes. Each can be started, killed or frozen by itself.
    pub nodes: Vec<Node>,
    given: MeshBuilder,
}

impl Mesh {
    /// Returns a builder for this many nodes on loopback, each with the route addresses of the others.
    pub fn builder(kind: ServerKind, size: usize) -> MeshBuilder {
        MeshBuilder {
            kind,
            size,
            joining: Joining::Routes,
            flags: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Starts a mesh with the defaults of [`builder`](Self::builder).
    pub async fn start(kind: ServerKind, size: usize) -> Self {
        Self::builder(kind, size).start().await
    }

    /// Starts all nodes that do not run, at once, and waits until every node has a route to every other one.
    pub async fn start_all(&mut self) {
        let mut started = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if !node.is_running() {
                node.launch();
                started.push(index);
            }
        }
        for index in started {
            self.nodes[index].wait_until_ready().await;
        }
        self.wait_until_whole().await;
    }

    /// Starts a node again on its old ports and waits until the mesh is whole.
    pub async fn restart(&mut self, index: usize) {
        self.nodes[index].restart().await;
        self.wait_until_whole().await;
    }

    /// Returns the index of the node with this client address.
    pub fn index_of(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address() == address)
    }

    /// Adds a node on loopback without starting it, and returns its index. It finds the others as the first nodes do.
    pub fn add(&mut self) -> usize {
        let index = self.describe_one(None);
        self.introduce(index);
        index
    }

    /// Adds a node on loopback, starts it, waits until it is ready, and returns its index.
    pub async fn start_one_more(&mut self) -> usize {
        let index = self.add();
        self.nodes[index].restart().await;
        index
    }

    /// Waits until each running node has routes to every other one, and to no other node. Frozen nodes are ignored.
    #[track_caller]
    pub fn wait_until_whole(&mut self) -> impl Future<Output = ()> {
        let answering = self.answering();
        self.wait_until_linked(&answering)
    }

    /// Waits until each of these nodes has routes to every other one of them, and to no other node, as after a partition. Routes
    /// to a frozen node outside the group are ignored.
    #[track_caller]
    pub fn wait_until_linked(&mut self, group: &[usize]) -> impl Future<Output = ()> + use<'_> {
        let at = Location::caller();
        let group = group.to_vec();
        async move {
            let what = format!("nodes {group:?} have routes to each other and to no other");
            settled(at, &what, TIMEOUT, async || self.linked(&group).await.map(drop)).await;
        }
    }

    /// Waits as [`wait_until_whole`](Self::wait_until_whole) does, and until each of these nodes has received exactly the interest of
    /// the clients of every other one. The subscription count of a `standin-broker` must also be exact: its clients' subscriptions
    /// plus the received interest.
    #[track_caller]
    pub fn wait_until_agreed(&mut self) -> impl Future<Output = ()> {
        let answering = self.answering();
        self.wait_until_agreed_among(&answering)
    }

    /// Waits as [`wait_until_agreed`](Self::wait_until_agreed) does, for these nodes only.
    #[track_caller]
    pub fn wait_until_agreed_among(&mut self, group: &[usize]) -> impl Future<Output = ()> + use<'_> {
        let at = Location::caller();
        let group = group.to_vec();
        async move {
            let what = format!(
                "nodes {group:?} have routes to each other and to no other, and the interest of each other"
            );
            settled(at, &what, TIMEOUT, async || self.agreed(&group).await).await;
        }
    }

    /// Returns the indices of the running nodes that are not frozen.
    pub fn answering(&mut self) -> Vec<usize> {
        let answers = |node: &mut Node| node.is_running() && !node.is_frozen();
        let nodes = self.nodes.iter_mut().enumerate();
        nodes
            .filter_map(|(index, node)| answers(node).then_some(index))
            .collect()
    }

    fn describe_one(&mut self, netns: Option<&Netns>) -> usize {
        let index = self.nodes.len();
        let mut node = Node::new(self.given.kind, format!("n{}", index + 1), netns);
        let flags: Vec<&str> = self.given.flags.iter().map(String::as_str).collect();
        node.add_flags(&flags);
        for (key, value) in &self.given.settings {
            node.set(key, value);
        }
        self.nodes.push(node);
        index
    }

    /// Gives a node the flags by which it finds the others.
    fn introduce(&mut self, index: usize) {
        let node = &self.nodes[index];
        let listen = format!("nats://{}", node.cluster_address());
        let own = ["-n", node.name(), "--cluster", &listen, "--cluster_name", "mesh"];
        let mut flags: Vec<String> = own.map(str::to_owned).into();
        match &self.given.joining {
            Joining::Routes => flags.extend(self.routes(index, self.nodes.len())),
            Joining::Seed => flags.extend(self.routes(index, 1)),
            Joining::ZooKeeper { hosts } => flags.extend(["--zookeeper", hosts].map(str::to_owned)),
        }
        self.nodes[index].join_by(flags);
    }

    /// Returns the flag with the addresses of the first `known` nodes except the node itself.
    fn routes(&self, index: usize, known: usize) -> Vec<String> {
        let others = self.nodes.iter().take(known).enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let routes: Vec<String> = others
            .map(|(_, node)| format!("nats://{}", node.cluster_address()))
            .collect();
        if routes.is_empty() {
            return Vec::new();
        }
        vec!["--routes".to_owned(), routes.join(",")]
    }

    fn frozen_names(&mut self) -> Vec<String> {
        let frozen = self.nodes.iter_mut().filter_map(|node| {
            let frozen = node.is_frozen();
            frozen.then(|| node.name().to_owned())
        });
        frozen.collect()
    }

    /// Reads the name and the routes of each of these nodes.
    async fn links_of(&mut self, group: &[usize]) -> Result<Vec<(String, Links)>, String> {
        let mut all = Vec::new();
        for index in group {
            let node = &mut self.nodes[*index];
            let name = node.name().to_owned();
            if !node.is_running() {
                let process = node.process();
                panic!("{name} exited unexpectedly:\n{}", process.tail());
            }
            let links = Links::read(node.http()).await;
            all.push((
                name.clone(),
                links.ok_or(format!("{name} does not serve its pages"))?,
            ));
        }
        Ok(all)
    }

    async fn linked(&mut self, group: &[usize]) -> Result<Vec<(String, Links)>, String> {
        let frozen = self.frozen_names();
        let links = self.links_of(group).await?;
        linked(&links, &frozen).map(|()| links)
    }

    async fn agreed(&mut self, group: &[usize]) -> Result<(), String> {
        let links = self.linked(group).await?;
        for (index, (name, own_links)) in group.iter().zip(&links) {
            let interest = OwnInterest::read(self.nodes[*index].http()).await;
            let interest = interest.ok_or(format!("{name} does not serve /connz"))?;
            self.counted(*index, &interest, own_links).await?;
            for (other, other_links) in links.iter().filter(|(other, _)| other != name) {
                let peer = other_links
                    .to(&own_links.id)
                    .ok_or(format!("{other} has no route to {name}"))?;
                interest
                    .known_as(peer)
                    .map_err(|wrong| format!("on {other}: {wrong}"))?;
            }
        }
        Ok(())
    }

    /// Checks the subscription count of a `standin-broker`. That of a `nats-server` includes its own services.
    async fn counted(&self, index: usize, own: &OwnInterest, links: &Links) -> Result<(), String> {
        let node = &self.nodes[index];
        let remote: u64 = links.peers().map(|peer| peer.interest).sum();
        let expected = own.subscriptions as u64 + remote;
        let counted = node.num_subscriptions().await;
        if self.given.kind == ServerKind::Standin && counted != Some(expected) {
            return Err(format!(
                "{} counts {counted:?} subscriptions, but has {} of its clients and {remote} of other nodes",
                node.name(),
                own.subscriptions
            ));
        }
        Ok(())
    }
}

/// Checks that each of these nodes has complete routes to all others, and none to a node outside the list, except frozen ones.
fn linked(all: &[(String, Links)], frozen: &[String]) -> Result<(), String> {
    for (name, links) in all {
        for (other, other_links) in all.iter().filter(|(other, _)| other != name) {
            let peer = links
                .to(&other_links.id)
                .ok_or(format!("{name} has no route to {other}"))?;
            if !links.is_complete(peer) {
                return Err(format!(
                    "{name} has only {} connections to {other}",
                    peer.connections
                ));
            }
        }
        let is_here = |id: &str| all.iter().any(|(_, links)| links.id == id);
        if let Some(stranger) = links
            .peers()
            .find(|peer| !is_here(&peer.id) && !frozen.contains(&peer.name))
        {
            return Err(format!(
                "{name} still has a route to {} with id {}",
                stranger.name, stranger.id
            ));
        }
    }
    Ok(())
}
