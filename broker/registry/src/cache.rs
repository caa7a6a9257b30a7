//! The file that serves a cold start: the last good lists, and the last INFO line a node sent. JSON,
//! versioned, replaced as a whole.
//!
//! It is a hint and never a reason to fail: what cannot be read is told and left aside. Secrets never go in.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::list::{ListName, Lists, Remembered};
use crate::node::{Node, NodeState, Source};

const VERSION: u32 = 1;
/// Room for 100,000 nodes; a larger file is none of ours.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The longest INFO line that is kept.
pub(crate) const INFO_BYTES_MAX: usize = 32 * 1024;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) remembered: Lists,
    pub(crate) info: Option<String>,
}

/// The version alone, so that a file of another version is told from a damaged one.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct File {
    v: u32,
    nodes: Vec<Record>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    // Without the node's run: after a cold start nobody knows which life of it is met.
    source: String,
    /// Which list of the source.
    #[serde(default)]
    list: String,
    /// When it left the list, in seconds since 1970; none while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_at: Option<u64>,
    id: String,
    client: String,
    #[serde(default)]
    mesh: Option<String>,
    #[serde(default)]
    http: Option<String>,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    zone: String,
    weight: u32,
    state: String,
    #[serde(default)]
    version: String,
}

/// Reads the file; nothing when there is none yet. The error says what is wrong with which file.
pub(crate) fn load(path: &Path, nodes_max: usize) -> Result<Kept, String> {
    let fail = |what: String| format!("the cache file {} is left aside: {what}", path.display());
    // Looked at first: to open a pipe waits for its writer.
    let kind = fs::metadata(path);
    if kind.is_ok_and(|kind| !kind.is_file()) {
        return Err(fail("it is no file".to_owned()));
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(fail(format!("it cannot be read: {error}"))),
    };
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| fail(format!("it cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let damaged = |error: serde_json::Error| fail(format!("it is damaged: {error}"));
    let version = serde_json::from_slice::<Versioned>(&bytes).map_err(damaged)?.v;
    if version != VERSION {
        return Err(fail(format!(
            "it has version {version} and only {VERSION} is known; it will be replaced"
        )));
    }
    let file: File = serde_json::from_slice(&bytes).map_err(damaged)?;
    let mut kept = Kept {
        info: file.info.filter(|info| info.len() <= INFO_BYTES_MAX),
        ..Kept::default()
    };
    for record in file.nodes {
        let source = source_named(&record.source)
            .ok_or_else(|| fail(format!("it is damaged: source {:?}", record.source)))?;
        let list = ListName {
            source,
            name: record.list.clone(),
        };
        // What is no time is long ago.
        let time = |secs| UNIX_EPOCH.checked_add(Duration::from_secs(secs));
        let left = record.left_at.map(|secs| time(secs).unwrap_or(UNIX_EPOCH));
        let node = record
            .node(source)
            .map_err(|error| fail(format!("it is damaged: {error}")))?;
        let nodes = kept.remembered.entry(list).or_default();
        if nodes.len() < nodes_max {
            let node = Arc::new(node);
            nodes.push(Remembered { node, left });
        }
    }
    Ok(kept)
}

/// Replaces the file: written beside it, made durable, renamed. A reader sees the old or the new one whole,
/// whatever happens.
pub(crate) fn store(path: &Path, kept: &Kept) -> Result<(), String> {
    let fail = |what: &str, error: std::io::Error| {
        format!(
            "the cache file {} cannot be written ({what}): {error}; look at the folder's rights and space",
            path.display()
        )
    };
    let nodes = kept
        .remembered
        .iter()
        .flat_map(|(list, nodes)| nodes.iter().map(|known| Record::of(list, known)));
    let file = File {
        v: VERSION,
        nodes: nodes.collect(),
        info: kept.info.clone(),
    };
    let mut bytes = serde_json::to_vec_pretty(&file).map_err(|error| fail("encode", error.into()))?;
    bytes.push(b'\n');
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| fail("folder", error))?;
    let mut beside = tempfile::Builder::new()
        .prefix(".standin-cache-")
        .tempfile_in(folder)
        .map_err(|error| fail("temporary file", error))?;
    beside.write_all(&bytes).map_err(|error| fail("write", error))?;
    beside.as_file().sync_all().map_err(|error| fail("sync", error))?;
    beside
        .persist(path)
        .map_err(|error| fail("rename", error.error))?;
    // Without this the rename itself may be lost with the power.
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| fail("sync of the folder", error))
}

fn source_named(name: &str) -> Option<Source> {
    [Source::ZooKeeper, Source::Dns]
        .into_iter()
        .find(|source| source.as_str() == name)
}

impl Record {
    fn of(list: &ListName, known: &Remembered) -> Self {
        let text = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string);
        let node = &known.node;
        let left_at = known.left.and_then(|left| left.duration_since(UNIX_EPOCH).ok());
        Self {
            source: list.source.as_str().to_owned(),
            list: list.name.clone(),
            left_at: left_at.map(|left| left.as_secs()),
            id: node.id.to_string(),
            client: node.client.to_string(),
            mesh: text(&node.mesh),
            http: text(&node.http),
            tls: node.tls,
            zone: node.zone.to_string(),
            weight: node.weight,
            state: node.state.as_str().to_owned(),
            version: node.version.to_string(),
        }
    }

    fn node(self, source: Source) -> Result<Node, crate::RegistryError> {
        let endpoint = |text: Option<String>| text.map(|text| text.parse::<Endpoint>()).transpose();
        Ok(Node {
            id: self.id.into(),
            mesh: endpoint(self.mesh)?,
            http: endpoint(self.http)?,
            tls: self.tls,
            zone: self.zone.into(),
            weight: self.weight.max(1),
            state: if self.state == NodeState::Draining.as_str() {
                NodeState::Draining
            } else {
                NodeState::Up
            },
            version: self.version.into(),
            ..Node::at(self.client.parse()?, source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Credentials;

    fn kept() -> Kept {
        let secret = Credentials {
            user: Some("u".into()),
            password: Some("geheim".into()),
            token: Some("geheim".into()),
        };
        let node = Node {
            id: "n1".into(),
            mesh: Some(Endpoint::new("::1", 6222)),
            zone: "a".into(),
            state: NodeState::Draining,
            credentials: Some(Arc::new(secret)),
            ..Node::at(Endpoint::new("10.0.0.1", 4222), Source::ZooKeeper)
        };
        let plain = Node::at(Endpoint::new("10.0.0.2", 4222), Source::Dns);
        let list = |source, name: &str| ListName {
            source,
            name: name.to_owned(),
        };
        let known = |node, left| Remembered {
            node: Arc::new(node),
            left,
        };
        let left = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let remembered = Lists::from([
            (list(Source::ZooKeeper, "h /path"), vec![known(node, None)]),
            (list(Source::Dns, "d:1"), vec![known(plain, Some(left))]),
        ]);
        Kept {
            remembered,
            info: Some("INFO {}".into()),
        }
    }

    #[test]
    fn what_was_kept_is_read_again_without_the_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/cache.json");
        store(&path, &kept()).unwrap();
        store(&path, &kept()).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("geheim"));
        let read = load(&path, 10).unwrap();
        let mut wanted = kept();
        for known in wanted.remembered.values_mut().flatten() {
            known.node = Arc::new(Node {
                credentials: None,
                ..Node::clone(&known.node)
            });
        }
        assert_eq!(read, wanted);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_left_aside_with_what_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.json");
        assert_eq!(load(&path, 10), Ok(Kept::default()), "none yet is no error");
        store(&path, &kept()).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() - 2 {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = load(&path, 10).unwrap_err();
            assert!(
                error.contains("damaged") && error.contains("cache.json"),
                "{error}"
            );
        }
        fs::write(&path, br#"{"v":2,"nodes":{}}"#).unwrap();
        assert!(load(&path, 10).unwrap_err().contains("version 2"));
        fs::write(&path, [0xff; 64]).unwrap();
        assert!(load(&path, 10).unwrap_err().contains("damaged"));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for no_file in [folder.path(), &pipe] {
            assert!(load(no_file, 10).unwrap_err().contains("is no file"));
        }
        assert!(
            store(&path.join("below-a-file"), &kept())
                .unwrap_err()
                .contains("folder")
        );
    }

    #[test]
    fn a_file_that_does_not_tell_lists_apart_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.json");
        let old =
            r#"{"v":1,"nodes":[{"source":"zookeeper","id":"n","client":"n:1","weight":1,"state":"up"}]}"#;
        fs::write(&path, old).unwrap();
        let lists = load(&path, 10).unwrap().remembered;
        let (list, nodes) = lists.first_key_value().unwrap();
        assert_eq!((list.source, &*list.name), (Source::ZooKeeper, ""));
        assert_eq!((&*nodes[0].node.id, nodes[0].left), ("n", None));
    }
}
