//! A cluster of nodes, ours or `nats-server`, that a test builds up and takes apart node by node, and waits for.
//!
//! [`Cluster`](crate::Cluster) is the cluster that a sidecar is tested against, by settings files; a mesh is itself what is
//! tested, by flags that both makers share. What it waits for is what the nodes say on their pages (see [`links`](crate::links)).

use crate::condition::settled;
use crate::lan::Lan;
use crate::links::{Links, OwnInterest};
use crate::mesh_node::MeshNode;
use crate::netns::Netns;
use crate::server::Maker;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

/// How long a mesh may take to become whole, or to agree.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the nodes find each other.
#[derive(Clone, Debug)]
enum Joining {
    /// Each is given the addresses of all the others that there are when it is described.
    Routes,
    /// Each is given the first one's address only, and hears of the others from there.
    Seed,
    /// In a registry.
    ZooKeeper { hosts: String, path: String },
}

/// What a mesh is to be like.
#[derive(Clone, Debug)]
pub struct MeshBuilder {
    maker: Maker,
    size: usize,
    name: String,
    joining: Joining,
    flags: Vec<String>,
    settings: Vec<(String, String)>,
}

impl MeshBuilder {
    /// Gives every node these flags too; for one node's, see [`MeshNode::flags`].
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Sets a key of every node's settings, such as `cluster.ping_timeout_ms`. Only ours has them.
    #[must_use]
    pub fn setting(mut self, key: &str, value: impl ToString) -> Self {
        assert_eq!(self.maker, Maker::Ours, "only ours has the setting {key}");
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Gives every node the address of the first only.
    #[must_use]
    pub fn seeded(mut self) -> Self {
        self.joining = Joining::Seed;
        self
    }

    /// Lets the nodes find each other in ZooKeeper, and through nothing else. Only ours can.
    #[must_use]
    pub fn zookeeper(mut self, hosts: impl Into<String>, path: &str) -> Self {
        assert_eq!(self.maker, Maker::Ours, "only ours knows ZooKeeper");
        self.joining = Joining::ZooKeeper {
            hosts: hosts.into(),
            path: path.to_owned(),
        };
        self
    }

    /// Describes the nodes and starts none.
    pub fn describe(self) -> Mesh {
        self.described(|_| None)
    }

    /// As [`describe`](Self::describe), node 0 on machine 0 of this network, and so on.
    pub fn describe_across(self, lan: &Lan) -> Mesh {
        self.described(|index| Some(lan.host(index)))
    }

    /// Starts all nodes at once and waits until the mesh is whole.
    pub async fn start(self) -> Mesh {
        let mut mesh = self.describe();
        mesh.start_all().await;
        mesh
    }

    /// As [`start`](Self::start), node 0 on machine 0 of this network, and so on.
    pub async fn start_across(self, lan: &Lan) -> Mesh {
        let mut mesh = self.describe_across(lan);
        mesh.start_all().await;
        mesh
    }

    fn described<'a>(self, place: impl Fn(usize) -> Option<&'a Netns>) -> Mesh {
        let size = self.size;
        let mut mesh = Mesh {
            nodes: Vec::new(),
            given: self,
        };
        for index in 0..size {
            mesh.describe_one(place(index));
        }
        for index in 0..size {
            mesh.introduce(index);
        }
        mesh
    }
}

/// Nodes 0, 1, … of one cluster.
#[derive(Debug)]
pub struct Mesh {
    /// The nodes, in order: each can be started, killed, frozen and so on by itself.
    pub nodes: Vec<MeshNode>,
    given: MeshBuilder,
}

impl Mesh {
    /// A mesh of so many nodes on loopback that know each other by their routes.
    pub fn builder(maker: Maker, size: usize) -> MeshBuilder {
        MeshBuilder {
            maker,
            size,
            name: "mesh".to_owned(),
            joining: Joining::Routes,
            flags: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Starts [`builder`](Self::builder)`(maker, size)` as it is.
    pub async fn start(maker: Maker, size: usize) -> Self {
        Self::builder(maker, size).start().await
    }

    /// Starts every node that does not run, all at once, and waits until the mesh is whole.
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

    /// Describes one more node, on loopback or on this machine, that knows of all before it; its index. It is not started.
    pub fn add(&mut self, place: Option<&Netns>) -> usize {
        let index = self.describe_one(place);
        self.introduce(index);
        index
    }

    /// [`add`](Self::add) on loopback, started and ready; its index.
    pub async fn start_one_more(&mut self) -> usize {
        let index = self.add(None);
        self.nodes[index].restart().await;
        index
    }

    /// Waits until each running node is linked to each other one and to none besides. A frozen node is neither asked nor
    /// missed.
    #[track_caller]
    pub fn wait_until_whole(&mut self) -> impl Future<Output = ()> {
        let answering = self.answering();
        self.wait_until_linked(&answering)
    }

    /// Waits until each of these nodes is linked to each other one of them and to none besides, as after a partition. A
    /// link to a frozen node that is not among them does not count.
    #[track_caller]
    pub fn wait_until_linked(&mut self, group: &[usize]) -> impl Future<Output = ()> + use<'_> {
        let at = Location::caller();
        let group = group.to_vec();
        async move {
            let what = format!("nodes {group:?} are linked to each other and to no other");
            settled(at, &what, PATIENCE, async || {
                let frozen = self.frozen_names();
                self.links_of(&group)
                    .await
                    .and_then(|links| linked(&links, &frozen))
            })
            .await;
        }
    }

    /// Waits until each running node that is not frozen knows the interest of the clients of each other one, and no more; ours
    /// must also count no more subscriptions than its clients' and these.
    #[track_caller]
    pub fn wait_until_agreed(&mut self) -> impl Future<Output = ()> {
        let answering = self.answering();
        self.wait_until_agreed_among(&answering)
    }

    /// [`wait_until_agreed`](Self::wait_until_agreed) among these nodes only.
    #[track_caller]
    pub fn wait_until_agreed_among(&mut self, group: &[usize]) -> impl Future<Output = ()> + use<'_> {
        let at = Location::caller();
        let group = group.to_vec();
        async move {
            let what = format!("nodes {group:?} agree on who wants what");
            settled(at, &what, PATIENCE, async || self.agreed(&group).await).await;
        }
    }

    /// Indices of the running nodes that are not frozen.
    pub fn answering(&mut self) -> Vec<usize> {
        let answers = |node: &mut MeshNode| node.is_running() && !node.is_frozen();
        let nodes = self.nodes.iter_mut().enumerate();
        nodes
            .filter_map(|(index, node)| answers(node).then_some(index))
            .collect()
    }

    fn describe_one(&mut self, place: Option<&Netns>) -> usize {
        let index = self.nodes.len();
        let mut node = MeshNode::new(self.given.maker, format!("n{}", index + 1), place);
        node.flags.clone_from(&self.given.flags);
        node.settings.clone_from(&self.given.settings);
        self.nodes.push(node);
        index
    }

    /// Tells a node how to find the others.
    fn introduce(&mut self, index: usize) {
        let mut flags = vec!["--cluster_name".to_owned(), self.given.name.clone()];
        match &self.given.joining {
            Joining::Routes => flags.extend(self.routes(index, self.nodes.len())),
            Joining::Seed => flags.extend(self.routes(index, 1)),
            Joining::ZooKeeper { hosts, path } => {
                flags.extend(["--zookeeper", hosts, "--zookeeper-path", path].map(str::to_owned))
            }
        }
        self.nodes[index].join_by(flags);
    }

    /// The flag with the addresses of the first so many nodes but itself.
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

    /// What each of these nodes tells of its links, with its name.
    async fn links_of(&mut self, group: &[usize]) -> Result<Vec<(String, Links)>, String> {
        let mut all = Vec::new();
        for index in group {
            let node = &mut self.nodes[*index];
            let name = node.name().to_owned();
            if !node.is_running() {
                let process = node.process();
                panic!("{name} ended by itself:\n{}", process.tail());
            }
            let links = Links::read(node.http()).await;
            all.push((name.clone(), links.ok_or(format!("{name} gives no pages"))?));
        }
        Ok(all)
    }

    async fn agreed(&mut self, group: &[usize]) -> Result<(), String> {
        let links = self.links_of(group).await?;
        for (index, (name, told)) in group.iter().zip(&links) {
            let interest = OwnInterest::read(self.nodes[*index].http()).await;
            let interest = interest.ok_or(format!("{name} gives no page of its clients"))?;
            self.counted(*index, &interest, told).await?;
            for (knower, known) in links.iter().filter(|(knower, _)| knower != name) {
                let peer = known
                    .to(&told.id)
                    .ok_or(format!("{knower} has no link to {name}"))?;
                interest
                    .known_as(peer)
                    .map_err(|wrong| format!("on {knower}: {wrong}"))?;
            }
        }
        Ok(())
    }

    /// What is wrong with how many subscriptions a node counts. The real one counts those of its own services too.
    async fn counted(&self, index: usize, own: &OwnInterest, links: &Links) -> Result<(), String> {
        let node = &self.nodes[index];
        let remote: u64 = links.peers().map(|peer| peer.interest).sum();
        let expected = own.subscriptions as u64 + remote;
        let counted = node.num_subscriptions().await;
        if self.given.maker == Maker::Ours && counted != Some(expected) {
            return Err(format!(
                "{} counts {counted:?} subscriptions, and has {} of its clients and {remote} of others",
                node.name(),
                own.subscriptions
            ));
        }
        Ok(())
    }
}

/// What is wrong with these links; nothing when each leads to all the others and none to one that is not here.
fn linked(all: &[(String, Links)], frozen: &[String]) -> Result<(), String> {
    for (name, links) in all {
        for (other, told) in all.iter().filter(|(other, _)| other != name) {
            let peer = links
                .to(&told.id)
                .ok_or(format!("{name} has no link to {other}"))?;
            if !links.is_complete(peer) {
                return Err(format!(
                    "{name} has only {} connections to {other}",
                    peer.connections
                ));
            }
        }
        let is_here = |id: &str| all.iter().any(|(_, told)| told.id == id);
        if let Some(stranger) = links
            .peers()
            .find(|peer| !is_here(&peer.id) && !frozen.contains(&peer.name))
        {
            return Err(format!(
                "{name} still has a link to {} with id {}",
                stranger.name, stranger.id
            ));
        }
    }
    Ok(())
}
