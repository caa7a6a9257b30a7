//! The man pages and shell completions of both programs, made from the definitions of their command lines. They are part of the Debian
//! packages; `deploy/package` makes them.

use std::fs::{File, create_dir_all};
use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

/// Section of the manual: programs for system administration.
const SECTION: &str = "8";

/// Writes the man pages (`NAME.8`) and the completions for bash, zsh and fish (`NAME.bash`, `_NAME`, `NAME.fish`) of both programs.
///
/// # Errors
/// The error of the system.
pub fn write(folder: &Path) -> io::Result<()> {
    create_dir_all(folder)?;
    for (command, settings) in [
        (standin_proxy::cli::Cli::command(), "proxy.toml"),
        (standin_broker::cli::Cli::command(), "broker.toml"),
    ] {
        let name = command.get_name().to_owned();
        let mut command = command.disable_help_subcommand(true);
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            clap_complete::generate(shell, &mut command, &name, &mut File::create(folder.join(file))?);
        }
        let files = format!(
            "/etc/standin/{settings}\n    settings of the service\n/usr/share/doc/{name}/{settings}\n    all settings, with their defaults"
        );
        command.build();
        write_pages(&command, &files, folder)?;
    }
    Ok(())
}

/// Writes the page of `command` and those of its subcommands.
fn write_pages(command: &Command, files: &str, folder: &Path) -> io::Result<()> {
    let notes = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let man = Man::new(command.clone().after_help("")).section(SECTION);
    let mut page = File::create(folder.join(man.get_filename()))?;
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let subcommands = || {
        command
            .get_subcommands()
            .filter(|subcommand| !subcommand.is_hide_set())
    };
    if subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    for (title, text) in [("NOTES", notes.as_str()), ("FILES", files)] {
        if !text.is_empty() {
            write!(page, "{}", section(title, text))?;
        }
    }
    subcommands().try_for_each(|subcommand| write_pages(subcommand, files, folder))
}

/// Returns a section of a man page. Its text is filled like a paragraph. An indented line, one after it, and one that begins with a
/// label, such as `Signals: `, begin a new line, and an empty one a new paragraph.
fn section(title: &str, text: &str) -> String {
    let mut section = format!(".SH {title}\n.nh\n");
    let mut after_indented = false;
    for line in text.lines() {
        let is_indented = line.starts_with(' ');
        let label = line.split_once(": ").map(|(label, _)| label);
        let is_labelled = label.is_some_and(|label| !is_indented && label.split(' ').count() <= 2);
        section.push_str(if line.is_empty() {
            ".PP\n"
        } else if is_labelled || after_indented && !is_indented {
            ".br\n"
        } else {
            ""
        });
        after_indented = is_indented;
        // A line that begins with one of these would be a command. A plain "-" is a hyphen, which cannot be copied as the dash of a flag.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if !line.is_empty() {
            section.push_str(&format!("{guard}{line}\n"));
        }
    }
    section.push_str(".hy\n");
    section
}
