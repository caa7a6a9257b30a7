//! What the host gives the program: open files, and folders to write to.

use std::fs;
use std::path::Path;

use rustix::fs::Access;

use super::report::Row;
use crate::connection_limit::ConnectionLimit;

/// Checks the limit on open files of the running program (`pid`), or else of this command. A limit that is too low is a warning only if
/// the number of connections is set explicitly (`is_given`).
#[must_use]
pub fn open_files(limit: ConnectionLimit, is_given: bool, pid: Option<u32>) -> Row {
    const CHECK: &str = "open files";
    let ConnectionLimit { max, key, name, .. } = limit;
    let of_process = pid.and_then(hard_limit);
    let fits = limit.that_would_fit(of_process);
    let whose = match of_process {
        Some(_) => "the running program",
        None => "this shell",
    };
    let found = format!("the limit of {whose} allows {fits} {name}, {key} = {max}");
    if fits < max && is_given {
        let remedy = format!("raise the limit (ulimit -Hn, LimitNOFILE), or lower {key}");
        return Row::warn(CHECK, "", found, remedy);
    }
    Row::ok(CHECK, "", found)
}

/// Returns the hard limit on open files of a process. The programs raise their soft limit to it.
fn hard_limit(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let hard = line.split_whitespace().nth(4)?;
    Some(hard.parse().unwrap_or(u64::MAX))
}

/// Checks that a file can be created at `path`: that its folder, or the nearest folder above that exists, can be written. Does not check
/// the permissions of a file that exists already. `key` is the setting that holds the path.
#[must_use]
pub fn file(check: &'static str, path: &Path, key: &str) -> Row {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let can_be_written = if path.is_dir() {
        Err("it is a folder".to_owned())
    } else {
        writable(folder.unwrap_or(Path::new(".")))
    };
    match can_be_written {
        Ok(()) => Row::ok(check, path.display(), "can be written"),
        Err(reason) => Row::fail(
            check,
            path.display(),
            format!("cannot be written: {reason}"),
            format!(
                "let the user of the service write to the folder of the file, or set {key} to another path"
            ),
        ),
    }
}

/// Checks that this user can create files in `folder`, or create it.
///
/// # Errors
/// The reason why not.
pub fn writable(folder: &Path) -> Result<(), String> {
    // A part of the path that is a file gives `Not a directory` and not `Not found`, so the search ends there.
    let is_there = |folder: &&Path| !matches!(fs::metadata(folder), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    let above = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    let nearest = above.into_iter().find(is_there).unwrap_or(Path::new("."));
    let shown = nearest.display();
    match fs::metadata(nearest) {
        Ok(found) if !found.is_dir() => return Err(format!("{shown} is not a folder")),
        Ok(_) => {}
        Err(error) => return Err(format!("{shown}: {error}")),
    }
    rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("folder {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_can_be_written_if_it_or_the_nearest_above_can() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(writable(folder.path()), Ok(()));
        assert_eq!(writable(&folder.path().join("new/deeper")), Ok(()));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(writable(&file.join("x")).unwrap_err().contains("file"));
        assert!(writable(&file).unwrap_err().contains("is not a folder"));
        assert_eq!(writable(Path::new("a-new-folder-here")), Ok(()));
        let row = super::file("file", folder.path(), "log.file");
        assert!(format!("{row:?}").contains("it is a folder"), "{row:?}");
    }
}
