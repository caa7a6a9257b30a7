//! The cache file: the last node lists, and the last INFO of a node. A process that starts while no source of nodes is
//! reachable uses them. The file is JSON with a version, and is always replaced as a whole.
//!
//! The file is a hint. If it cannot be read, the error is logged and the file is ignored. It contains no secrets.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::list::{ListName, RememberedLists, RememberedNode};
use crate::node::{Node, NodeState, Source};

const VERSION: u32 = 1;
/// Maximum size of the file, enough for 100,000 nodes.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Longest JSON of an INFO that is kept, in bytes.
pub(crate) const INFO_BYTES_MAX: usize = 32 * 1024;

/// Contents of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheContents {
    pub(crate) remembered: RememberedLists,
    pub(crate) info: Option<String>,
}

/// The version field only. It is parsed first, so that a file of another version is not reported as damaged.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct CacheFile {
    v: u32,
    nodes: Vec<CachedNode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct CachedNode {
    // `run` is not stored, because the node may be restarted before the file is read.
    source: String,
    /// Name of the list of the source.
    #[serde(default)]
    list: String,
    /// Time at which the node left the list, in seconds since 1970. `None` if it was still on the list.
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

/// Reads the file. Returns empty contents if it does not exist. The error contains the path.
pub(crate) fn load(path: &Path, nodes_max: usize) -> Result<CacheContents, String> {
    let fail = |what: String| format!("cache file {} ignored: {what}", path.display());
    // The type is checked before the file is opened, because opening a pipe would wait for a writer.
    let kind = fs::metadata(path);
    if kind.is_ok_and(|kind| !kind.is_file()) {
        return Err(fail("it is not a regular file".to_owned()));
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(CacheContents::default()),
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
            "it has version {version}, but only {VERSION} is supported; it will be replaced"
        )));
    }
    let file: CacheFile = serde_json::from_slice(&bytes).map_err(damaged)?;
    let mut kept = CacheContents {
        info: file.info.filter(|info| info.len() <= INFO_BYTES_MAX),
        ..CacheContents::default()
    };
    for record in file.nodes {
        let source = source_named(&record.source)
            .ok_or_else(|| fail(format!("it is damaged: source {:?}", record.source)))?;
        let list = ListName {
            source,
            name: record.list.clone(),
        };
        // A time that is out of range is replaced by 1970.
        let time = |secs| UNIX_EPOCH.checked_add(Duration::from_secs(secs));
        let left = record.left_at.map(|secs| time(secs).unwrap_or(UNIX_EPOCH));
        let damaged = |error| fail(format!("it is damaged: {error}"));
        let node = record.node(source).map_err(damaged)?;
        let nodes = kept.remembered.entry(list).or_default();
        if nodes.len() < nodes_max {
            let node = Arc::new(node);
            nodes.push(RememberedNode { node, left });
        }
    }
    Ok(kept)
}

/// The nodes in a cache file.
#[derive(Debug)]
pub struct CachedNodes {
    /// The nodes of all lists, without those that had left their list.
    pub nodes: Vec<Arc<Node>>,
    /// Time at which the file was written.
    pub written: SystemTime,
}

/// Reads the nodes in a cache file, for `doctor`. Returns `None` if the file does not exist.
///
/// # Errors
/// The reason why the file cannot be used, with its path.
pub fn cached_nodes(path: &Path, nodes_max: usize) -> Result<Option<CachedNodes>, String> {
    let Ok(written) = fs::metadata(path).and_then(|file| file.modified()) else {
        return load(path, nodes_max).map(|_| None);
    };
    let lists = load(path, nodes_max)?.remembered;
    let known = lists.into_values().flatten().filter(|known| known.left.is_none());
    let nodes = known.map(|known| known.node).collect();
    Ok(Some(CachedNodes { nodes, written }))
}

/// Replaces the file: writes a temporary file in the same folder, syncs it, and renames it. A reader always sees the complete
/// old or the complete new file.
pub(crate) fn store(path: &Path, kept: &CacheContents) -> Result<(), String> {
    let fail = |what: &str, error: std::io::Error| {
        format!(
            "cache file {} cannot be written ({what}): {error}; check the permissions and the free space of the folder",
            path.display()
        )
    };
    let lists = kept.remembered.iter();
    let nodes = lists.flat_map(|(list, nodes)| nodes.iter().map(|known| CachedNode::of(list, known)));
    let file = CacheFile {
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
    let mut temp = tempfile::Builder::new()
        .prefix(".standin-cache-")
        .tempfile_in(folder)
        // Only the kind of the error: its text contains the random name of the file.
        .map_err(|error| fail("temporary file", error.kind().into()))?;
    temp.write_all(&bytes).map_err(|error| fail("write", error))?;
    temp.as_file().sync_all().map_err(|error| fail("sync", error))?;
    temp.persist(path).map_err(|error| fail("rename", error.error))?;
    // Without this, a power failure may undo the rename.
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| fail("sync of the folder", error))
}

fn source_named(name: &str) -> Option<Source> {
    [Source::ZooKeeper, Source::Dns]
        .into_iter()
        .find(|source| source.as_str() == name)
}

impl CachedNode {
    fn of(list: &ListName, known: &RememberedNode) -> Self {
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
            state: NodeState::of(&self.state),
            version: self.version.into(),
            ..Node::at(self.client.parse()?, source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Credentials;

    fn kept() -> CacheContents {
        let secret = Credentials {
            user: Some("u".into()),
            password: Some("hunter2".into()),
            token: Some("hunter2".into()),
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
        let known = |node, left| RememberedNode {
            node: Arc::new(node),
            left,
        };
        let left = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let remembered = RememberedLists::from([
            (list(Source::ZooKeeper, "h /path"), vec![known(node, None)]),
            (list(Source::Dns, "d:1"), vec![known(plain, Some(left))]),
        ]);
        CacheContents {
            remembered,
            info: Some("INFO {}".into()),
        }
    }

    #[test]
    fn stored_contents_are_loaded_without_the_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/cache.json");
        store(&path, &kept()).unwrap();
        store(&path, &kept()).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("hunter2"));
        let read = load(&path, 10).unwrap();
        let mut wanted = kept();
        for known in wanted.remembered.values_mut().flatten() {
            known.node = Arc::new(Node {
                credentials: None,
                ..Node::clone(&known.node)
            });
        }
        assert_eq!(read, wanted);
        let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "no temporary file remains");
    }

    #[test]
    fn the_error_of_an_invalid_file_has_the_reason_and_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.json");
        // A missing file is not an error.
        assert_eq!(load(&path, 10), Ok(CacheContents::default()));
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
            assert!(load(no_file, 10).unwrap_err().contains("is not a regular file"));
        }
        let error = store(&path.join("below-a-file"), &kept()).unwrap_err();
        assert!(error.contains("folder"), "{error}");
    }

    #[test]
    fn a_file_without_names_of_lists_is_read() {
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
