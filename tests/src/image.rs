//! An image as its Containerfile describes it: what a container of it runs, as whom, and with which environment.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// The last stage of a Containerfile, and the program that stands for its binary.
#[derive(Clone, Debug)]
pub struct Image {
    /// The command line of the program, which the arguments of a container follow.
    pub entrypoint: Vec<String>,
    /// The variables that every container of the image has.
    pub environment: Vec<(String, String)>,
    /// User and group, as numbers.
    pub user: (u32, u32),
    /// The command that shows whether a container is healthy.
    pub health_check: Vec<String>,
    /// The program that a container finds at the path of its entry point, in `/usr/local/bin`. `None`: that of this machine.
    pub binary: Option<PathBuf>,
}

impl Image {
    /// Reads a Containerfile. `binary` is the program that it builds.
    pub fn read(containerfile: &Path, binary: PathBuf) -> Self {
        let text = std::fs::read_to_string(containerfile)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", containerfile.display()));
        let text = text.replace("\\\n", " ");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let last_stage = lines.iter().rposition(|line| line.starts_with("FROM "));
        let lines = &lines[last_stage.expect("a line FROM")..];
        let after = |keyword: &str| {
            let found = lines.iter().find_map(|line| line.strip_prefix(keyword));
            found.unwrap_or_else(|| panic!("{} has no line {keyword}", containerfile.display()))
        };
        let json = |text: &str| -> Vec<String> {
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is not a list: {error}"))
        };
        let variables = after("ENV ").split_whitespace();
        let variables = variables.map(|variable| variable.split_once('=').expect("NAME=VALUE"));
        let (user, group) = after("USER ").split_once(':').expect("USER uid:gid");
        let number = |text: &str| text.parse().expect("a user with a number");
        let (_, check) = after("HEALTHCHECK ").split_once("CMD ").expect("CMD […]");
        Self {
            entrypoint: json(after("ENTRYPOINT ")),
            environment: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            user: (number(user), number(group)),
            health_check: json(check),
            binary: Some(binary),
        }
    }
}

/// Returns the texts of a JSON list. A missing list has no texts.
pub fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let text = |text: &Value| {
        text.as_str()
            .unwrap_or_else(|| panic!("{text} is no text"))
            .to_owned()
    };
    list.iter().map(text).collect()
}
