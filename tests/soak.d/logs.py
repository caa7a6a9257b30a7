"""What the programs wrote to their logs. A panic is never explained. An ERROR is explained only by a fault that causes it."""

import re

PANIC = re.compile(r"panicked at|session panicked|a bug ended")
ERROR = re.compile(r"\bERROR\b")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Lines kept of one program.
KEPT_MAX = 20


def lines(paths):
    for path in paths:
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                yield COLOUR.sub("", line)


def judge(name, text_lines, findings, allowed=()):
    """Adds a finding for each line that reports a bug or an error; `allowed` are texts of errors that the faults cause."""
    kept = 0
    for line in text_lines:
        bug = PANIC.search(line)
        error = ERROR.search(line) and not any(text in line for text in allowed)
        if (bug or error) and kept < KEPT_MAX:
            kept += 1
            findings.add("logs", f"{name}: {line[:300]}")
