//! Decides from the results of checks whether the server serves. Several failures in a row are needed before it no longer does, and
//! several passes in a row before it does again, so that one late answer does not move the clients.

/// The results of the last checks, and the decision.
#[derive(Debug)]
pub(super) struct Hysteresis {
    failures_needed: u32,
    successes_needed: u32,
    serves: bool,
    has_failed: bool,
    /// Number of checks in a row that contradict the decision.
    in_a_row: u32,
}

impl Hysteresis {
    /// Creates the state of a server that was not checked yet. Its first check decides, if it passes.
    pub(super) fn new(failures_needed: u32, successes_needed: u32) -> Self {
        Self {
            failures_needed,
            successes_needed,
            serves: false,
            has_failed: false,
            in_a_row: 0,
        }
    }

    /// Returns whether the server serves.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    /// Records a check that passed. Returns whether the server serves.
    pub(super) fn passed(&mut self) -> bool {
        let needed = if self.has_failed { self.successes_needed } else { 1 };
        self.record(true, needed)
    }

    /// Records a check that failed. A `certain` failure, such as a refused connection, decides alone. Returns whether the server
    /// serves.
    pub(super) fn failed(&mut self, certain: bool) -> bool {
        self.has_failed = true;
        let needed = if certain { 1 } else { self.failures_needed };
        self.record(false, needed)
    }

    fn record(&mut self, passed: bool, needed: u32) -> bool {
        if passed == self.serves {
            self.in_a_row = 0;
        } else {
            self.in_a_row += 1;
            if self.in_a_row >= needed {
                self.serves = passed;
                self.in_a_row = 0;
            }
        }
        self.serves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies checks: `+` passed, `-` failed, `!` failed for certain. Returns a letter for each: `S` if the server serves after it.
    fn decisions(checks: &str) -> String {
        let mut state = Hysteresis::new(3, 2);
        let each = checks.chars().map(|check| match check {
            '+' => state.passed(),
            check => state.failed(check == '!'),
        });
        each.map(|serves| if serves { 'S' } else { '.' }).collect()
    }

    #[test]
    fn a_server_serves_after_enough_passes_and_no_longer_after_enough_failures() {
        for (checks, serves) in [
            ("+++", "SSS"),
            ("+--+---", "SSSSSS."),
            ("+---+-++", "SSS....S"),
            ("+!++", "S..S"),
            ("!+!++", "....S"),
            ("-++", "..S"),
        ] {
            assert_eq!(decisions(checks), serves, "{checks}");
        }
    }
}
