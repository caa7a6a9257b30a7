"""What the checkers found: each finding breaks one promise, unless a fault explains it."""

import time
from dataclasses import dataclass

# Names by which a fault says which findings it explains.
MISSING = "missing"  # a message did not arrive
LATE = "late"  # a message arrived after a later one of the same publisher
CLOSED = "closed"  # the connection of a component was closed
NEVER = "never"  # nothing explains it

# Limit on the findings of the kind NEVER that are kept for each promise. All others are kept.
KEPT_MAX = 2000


@dataclass
class Finding:
    """One observation that breaks a promise, about messages from `at` until `until`, in seconds of time.monotonic()."""

    promise: str
    kind: str
    text: str
    at: float
    until: float
    # Sidecars on the way: a fault of one of them explains the finding.
    sidecars: tuple = ()
    count: int = 1
    explained_by: object = None


class Findings:
    """All findings of one run."""

    def __init__(self):
        self.list = []
        self._counts = {}

    def add(self, promise, text, kind=NEVER, at=None, until=None, sidecars=(), count=1):
        self._counts[promise, kind] = kept = self._counts.get((promise, kind), 0) + 1
        if kept <= KEPT_MAX or kind != NEVER:
            at = at or time.monotonic()
            self.list.append(Finding(promise, kind, text, at, until or at, tuple(sidecars), count))

    def unexplained(self, promise=None):
        return [found for found in self.list if not found.explained_by and promise in (None, found.promise)]
