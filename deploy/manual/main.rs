//! `standin-manual FOLDER` writes the man pages and shell completions of both programs into a folder.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: standin-manual FOLDER");
        return ExitCode::from(64);
    };
    match standin_manual::write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "standin-manual: cannot write to {}: {error}",
                Path::new(&folder).display()
            );
            ExitCode::from(69)
        }
    }
}
