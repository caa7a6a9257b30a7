"""Numbered messages: which were published and when, and which of them each receiver got.

Memory stays small over a long run: eight bytes for each message published, and one byte for each that a receiver may get.
"""

import time
from array import array

from findings import LATE


class Stream:
    """The messages of one publisher on one subject, numbered from 1. A payload can be computed from its number."""

    def __init__(self, kind, owner, prefix, sidecar, size=0):
        self.kind, self.sidecar, self.size = kind, sidecar, size
        self.name, self.subject = f"{prefix}.{kind}-{owner}", f"{prefix}.{kind}.{owner}"
        self.times = array("d", [0.0])

    def next(self):
        """Returns the payload of one more message, which is published now."""
        self.times.append(time.monotonic())
        return self.payload(self.count)

    @property
    def count(self):
        return len(self.times) - 1

    def payload(self, number):
        text = f"{self.name}:{number}:"
        # The filling depends on the number, so that bytes of another message are noticed.
        return (text + chr(97 + number % 26) * (self.size - len(text))).encode()


class Book:
    """All streams of a run, by name."""

    def __init__(self):
        self.streams = {}

    def open(self, stream):
        self.streams[stream.name.encode()] = stream
        return stream

    def find(self, payload):
        """Returns the stream and the number of a payload, or None if it was never published."""
        name, _, rest = payload.partition(b":")
        number, _, _ = rest.partition(b":")
        stream = self.streams.get(name)
        if stream is None or not number.isdigit() or not 1 <= int(number) <= stream.count:
            return None
        return (stream, int(number)) if payload == stream.payload(int(number)) else None


class Receipts:
    """What one receiver got: one subscription, or all members of a queue group together."""

    def __init__(self, name, book, findings, wants, in_order=True):
        # `in_order`: whether NATS promises an order. Answers of several responders have none.
        self.name, self.book, self.findings, self.in_order = name, book, findings, in_order
        # A function that says whether the receiver is to get a stream.
        self.wants = wants
        self.seen = {}
        self.last = {}
        # The sidecars of the members.
        self.sidecars = set()
        self.total = 0

    def take(self, member, payload, sidecar=None):
        """Checks one message and returns its stream and number, or None."""
        found = self.book.find(payload)
        if found is None:
            self.findings.add("S1", f"{member} got bytes that nobody published: {payload[:80]!r}")
            return None
        stream, number = found
        self.total += 1
        if not self.wants(stream):
            self.findings.add("echo", f"{member} got {stream.name} {number}, which it must not get")
            return found
        seen = self.seen.setdefault(stream.name, bytearray())
        if len(seen) <= number:
            seen.extend(bytes(max(number + 1, 2 * len(seen)) - len(seen)))
        last = self.last.get((member, stream.name), 0)
        if seen[number]:
            self.findings.add("S3", f"{self.name} got {stream.name} {number} twice")
        elif number < last and self.in_order:
            text = f"{member} got {stream.name} {number} after {last}"
            self.findings.add("S12", text, LATE, at=stream.times[number], sidecars=(stream.sidecar, sidecar))
        seen[number] = 1
        self.last[member, stream.name] = max(number, last)
        return found

    def highest(self, stream):
        """Returns the highest number of a stream that arrived."""
        return max(0, self.seen.get(stream.name, b"").rfind(1))

    def missing(self, stream, first=1, last=None):
        """Returns the numbers of a stream, from the first to the last, that did not arrive."""
        seen = self.seen.get(stream.name, b"")
        last = stream.count if last is None else last
        return [number for number in range(first, last + 1) if number >= len(seen) or not seen[number]]
