//! A view of a running program in the terminal: shown once, or again every second (`--watch`).

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::cli::{EXIT_BUG, EXIT_DONE, EXIT_UNAVAILABLE};
use crate::terminal::Terminal;

/// Interval between two views.
const REFRESH: Duration = Duration::from_secs(1);
/// Moves the cursor to the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears everything below.
const CLEAR_BELOW: &str = "\x1b[J";

/// What a view is: its lines, or the reason why there is none now.
pub type View = Result<Vec<String>, String>;

/// Shows one view. The exit code is 69 if there is none.
pub async fn show(program: &str, view: impl AsyncFnOnce(&Terminal) -> View) -> ExitCode {
    match view(&Terminal::of_stdout()).await {
        Ok(lines) => print(program, &(lines.join("\n") + "\n")),
        Err(reason) => {
            eprintln!("{program}: {reason}");
            EXIT_UNAVAILABLE.into()
        }
    }
}

/// Shows the view again every second until SIGINT. While there is no view, shows the reason and retries, because the program may be
/// restarting.
pub async fn watch(program: &str, mut view: impl AsyncFnMut(&Terminal) -> View) -> ExitCode {
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shown = async {
        loop {
            ticks.tick().await;
            let terminal = Terminal::of_stdout();
            let lines = view(&terminal).await;
            let lines = lines.unwrap_or_else(|reason| vec![format!("{program}: {reason}; retrying")]);
            if write(&frame(lines, &terminal)).is_err() {
                return EXIT_DONE;
            }
        }
    };
    let code = tokio::select! {
        code = shown => code,
        interrupted = tokio::signal::ctrl_c() => if interrupted.is_ok() { EXIT_DONE } else { EXIT_BUG },
    };
    if Terminal::of_stdout().size.is_some() {
        // The prompt of the shell begins on a line of its own.
        let _ = write("\n");
    }
    code.into()
}

/// Returns the text of one view: on a terminal it replaces the previous one and fits the screen, elsewhere a blank line follows it.
fn frame(mut lines: Vec<String>, terminal: &Terminal) -> String {
    let Some((_, rows)) = terminal.size else {
        return lines.join("\n") + "\n\n";
    };
    let hidden = lines.len().saturating_sub(rows.saturating_sub(1));
    if hidden > 0 {
        lines.truncate(rows.saturating_sub(2));
        lines.push(format!("… {} more lines", hidden + 1));
    }
    let text = lines.join(&format!("{CLEAR_LINE}\n"));
    format!("{HOME}{text}{CLEAR_LINE}{CLEAR_BELOW}")
}

/// Prints a text to standard output. Returns the exit code.
pub fn print(program: &str, text: &str) -> ExitCode {
    match write(text) {
        Ok(()) => EXIT_DONE.into(),
        // The reader of the pipe has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => EXIT_DONE.into(),
        Err(error) => {
            eprintln!("{program}: cannot write to standard output: {error}");
            EXIT_UNAVAILABLE.into()
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen() {
        let lines = |count: usize| (1..=count).map(|line| line.to_string()).collect::<Vec<_>>();
        let terminal = Terminal::of_size(80, 4);
        assert_eq!(frame(lines(2), &Terminal::default()), "1\n2\n\n");
        assert_eq!(
            frame(lines(3), &terminal),
            "\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\x1b[J"
        );
        assert_eq!(
            frame(lines(9), &terminal),
            "\x1b[H1\x1b[K\n2\x1b[K\n… 7 more lines\x1b[K\x1b[J"
        );
    }
}
