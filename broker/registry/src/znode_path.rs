//! Paths of znodes: which ones ZooKeeper accepts, and the path of a child.

use crate::error::RegistryError;

/// Checks `path` by ZooKeeper's own rules, because an error here is more specific than that of the server. `name` is the setting with
/// the path.
///
/// # Errors
/// [`RegistryError::Setting`].
pub(crate) fn check(name: &'static str, path: &str) -> Result<(), RegistryError> {
    let fail = |reason: &str| Err(RegistryError::setting(name, path, reason));
    if !path.starts_with('/') {
        return fail("a znode's path starts with '/'");
    }
    if path != "/" && path.ends_with('/') {
        return fail("a znode's path does not end with '/'");
    }
    if path.split('/').skip(1).any(|part| matches!(part, "." | "..")) || path.contains("//") {
        return fail("a znode's path has no empty, '.' or '..' parts");
    }
    let is_refused =
        |c: char| c.is_control() || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if path.chars().any(is_refused) {
        return fail("a znode's path has no control or private characters");
    }
    Ok(())
}

/// Iterates over the parents of a znode, from the top, without the root.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(end, _)| end).skip(1);
    ends.map(|end| &path[..end])
}

/// Returns the path of the child `name` of `path`.
pub(crate) fn child(path: &str, name: &str) -> String {
    if path == "/" {
        format!("/{name}")
    } else {
        format!("{path}/{name}")
    }
}
