"""The test of the checkers: errors that are planted on purpose, each of which must be found."""

import asyncio
import json
import time
from types import SimpleNamespace

import judge
import logs
import report
import samples
from faults import Window
from findings import CLOSED, MISSING, Findings
from spoiler import Spoiler, encode
from streams import Book, Receipts, Stream
from traffic import Traffic

# The errors are planted while traffic runs for this time.
TRAFFIC_SECS = 1.0
# Plants that run at the same time.
AT_ONCE = 13
# Numbers of the PONG and the +OK that are spoiled. They are not the first ones: the traffic begins only after those.
PING_NTH, OK_NTH = 10, 30
RATE = 0.3


class Plant:
    """One kind of harm, and the promise that the checkers must report as broken."""

    def __init__(self, name, promise, picks, harm, nth=5, release=None, connect=None):
        self.name, self.promise, self.picks, self.harm, self.nth = name, promise, picks, harm, nth
        self.release = release or (lambda held, frame: (b"", held))
        self.connect = connect or (lambda data: data)


def message(kind, to=""):
    """Picks messages of the streams of this kind, to clients whose name begins with `to`."""
    return lambda name, frame: frame[0] == "MSG" and f".{kind}.".encode() in frame[1] and name.startswith(to)


def verb(wanted, to=""):
    return lambda name, frame: frame[0] == wanted and name.startswith(to)


def hold(passage, frame, _plain):
    passage.held = frame
    return b""


def after(wanted):
    """Returns a function that releases a held frame after the next frame with this verb. With MSG, that is the next message with
    the subject and the sid of the held one."""

    def release(held, frame):
        passed = frame[0] == wanted and (wanted != "MSG" or frame[1:3] == held[1:3])
        return (encode(held), None) if passed else (b"", held)

    return release


def replaced(old, new):
    return lambda _passage, _frame, plain: plain.replace(old, new, 1)


def added(data):
    return lambda _passage, _frame, plain: plain + data


def info_with(**keys):
    return lambda _passage, frame, _plain: b"INFO " + json.dumps({**json.loads(frame[1]), **keys}).encode() + b"\r\n"


def twice(_passage, _frame, plain):
    return plain + plain


def nothing(_passage, _frame, _plain):
    return b""


NEVER = Plant("nothing", None, lambda _name, _frame: False, nothing)
PLANTS = [
    Plant("a message is dropped", "S3", message("plain", "sub"), nothing),
    Plant("a message to a queue group is dropped", "S3", message("work", "sub"), nothing),
    Plant("a message arrives twice", "S3", message("plain", "sub"), twice),
    Plant("two messages change places", "S12", message("plain", "sub0"), hold, release=after("MSG")),
    Plant("the end of a frame is cut off", "S1", message("plain", "sub"), lambda _p, _f, plain: plain[:-5]),
    Plant("a byte of a payload changes", "S1", message("plain", "sub"), replaced(b":", b";")),
    Plant("a header changes", "S1", message("head", "sub"), replaced(b"Kind", b"kind")),
    Plant("a PONG is swallowed", "S5", verb("PONG", "sub"), nothing, nth=PING_NTH),
    Plant("a PONG comes twice", "S5", verb("PONG", "ask"), twice, nth=PING_NTH),
    Plant("a PONG overtakes a message", "S5", message("loop", "pub1"), hold, release=after("PONG")),
    Plant("an +OK is swallowed", "S6", verb("+OK"), nothing, nth=OK_NTH),
    Plant("an +OK comes twice", "S6", verb("+OK"), twice, nth=OK_NTH),
    Plant("INFO names the cluster", "S7", verb("INFO"), info_with(connect_urls=["10.79.0.1:4222"])),
    Plant("INFO is too long", "S7", verb("INFO"), info_with(padding="x" * 512)),
    Plant("INFO has another address", "S7", verb("INFO"), info_with(port=4222)),
    Plant("a second INFO for an old client", "S7", verb("PONG", "pub2"), added(b'INFO {"host":"127.0.0.1","port":1}\r\n'), nth=4),
    Plant("PINGs of the node reach the component", "S8", verb("PONG", "sub"), added(b"PING\r\nPING\r\n"), nth=PING_NTH),
    Plant("an -ERR out of nothing", "S9", verb("PONG", "sub"), added(b"-ERR 'Stale Connection'\r\n"), nth=PING_NTH),
    Plant("credentials are refused", "S11", verb("PONG", "sub"), added(b"-ERR 'Authorization Violation'\r\n"), nth=PING_NTH),
    Plant("a connection is closed", "S10", verb("PONG", "sub"), lambda *_: None, nth=PING_NTH),
    Plant("a message too many for a maximum", "S4", lambda name, frame: message("tick", "count")(name, frame) and frame[2] > 1, twice),
    Plant("messages come back to their publisher", "echo", lambda *_: False, nothing,
          connect=lambda data: data.replace(b'"echo": false', b'"echo": true')),
    Plant("a request to somebody gets 503", "requests",
          lambda name, frame: frame[0] == "MSG" and b"_INBOX" in frame[1] and b".nobody." in frame[1],
          replaced(b".nobody.", b".ask."), nth=2),
    Plant("an answer is dropped", "S3", lambda name, frame: frame[0] == "MSG" and b"_INBOX" in frame[1], nothing),
    Plant("a subscription is not known everywhere after its PONG", "flush", message("visit"), nothing, nth=1),
]  # fmt: skip


async def run(door, secret):
    """Plants every error once, in the traffic through this listener, and once nothing. Checks the other checkers, too.

    Returns, for each: its name, whether the checkers reported what they must, and what they found.
    """
    results = []
    wanted = [NEVER, *PLANTS]
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        results += await asyncio.gather(*(try_one(plant, door, secret, first + n) for n, plant in enumerate(some)))
    return results + list(without_traffic())


async def try_one(plant, door, secret, number):
    findings = Findings()
    spoiler = Spoiler(door, plant)
    traffic = Traffic(f"planted{number}", [await spoiler.start()] * 3, findings, RATE, secret)
    # So that a subscription with a maximum ends within the run.
    traffic.answer_secs_max, traffic.maximum_max = 1, 8
    traffic.raw_clients()
    await traffic.start()
    await asyncio.sleep(TRAFFIC_SECS)
    await traffic.finish()
    await traffic.close()
    spoiler.stop()
    if plant is NEVER:
        return "nothing is planted, nothing is found", not findings.list, [found.text for found in findings.list]
    found = findings.unexplained(plant.promise)
    return plant.name, bool(found), [f"{one.promise}: {one.text}" for one in findings.list]


def without_traffic():
    """Checks of the other checkers: figures, logs and windows."""
    growing = [(second, 1, (50 + second) << 20, 20 + 4 * second, 0.0) for second in range(200)]
    steady = [(second, 1, 50 << 20, 20, 0.0) for second in range(200)]
    for name, series, wanted in (("growth", growing, {"memory", "descriptors"}), ("no growth", steady, set())):
        findings = Findings()
        samples.judge_life("a program", series, findings)
        yield f"{name} of memory and descriptors", {found.promise for found in findings.list} == wanted, []
    findings = Findings()
    logs.judge("a program", ["INFO fine", "ERROR broken", "thread 'x' panicked at y"], findings)
    yield "an error and a panic in a log", len(findings.list) == 2, []
    yield from windows()
    yield from outages()
    yield from floods()


def windows():
    """Checks that a fault explains only findings of its own kinds, in its own time, on its own sidecar."""
    now = time.monotonic()
    restart = Window("restart-sidecar", frozenset([MISSING, CLOSED]), sidecar="a", start=now, end=now + 1)
    reload = Window("reload", frozenset(), start=now, end=now + 1)
    for name, window, at, sidecar, wanted in (
        ("in its window", restart, now + 0.5, "a", True),
        ("after its window", restart, now + 1.5, "a", False),
        ("before its window", restart, now - 1.5, "a", False),
        ("on another sidecar", restart, now + 0.5, "b", False),
        ("by a fault that loses nothing", reload, now + 0.5, "a", False),
    ):
        findings = Findings()
        findings.add("S3", "lost", MISSING, at=at, sidecars=[sidecar])
        judge.explain(findings, [window])
        yield f"a loss {name} is {'' if wanted else 'not '}explained", bool(findings.list[0].explained_by) == wanted, []


def outages():
    """The window of an outage explains a loss, but not of what the sidecars held."""
    now = time.monotonic()
    window = Window("outage", frozenset([MISSING]), start=now - 1, end=now + 2, held=(now, now + 1))
    for lost in (2, 20):
        findings, book = Findings(), Book()
        stream = book.open(Stream("plain", "a", "planted", "a"))
        receipts = Receipts("b", book, findings, lambda _stream: True)
        for number in range(100):
            payload = stream.next()
            stream.times[-1] = now + number / 100
            if number >= lost:
                receipts.take("b", payload)
        judge.outages(findings, [window], SimpleNamespace(book=book, all_receipts={"b": receipts}))
        yield f"{lost} of 100 messages are lost that an outage held", bool(findings.list) == (lost > 5), []


def floods():
    """Many findings of one promise do not hide those of another, nor that there are more."""
    findings = Findings()
    for number in range(100):
        findings.add("S4", f"message {number // 2}")
    findings.add("S11", "refused")
    rows = [(promise, text) for promise, _, text in report.summary(findings.list)]
    wanted = {("S4", "message 0 (2 times)"), ("S11", "refused"), ("S4", f"and {100 - 2 * report.SHOWN_MAX} more")}
    yield "the report of many findings shows each promise, and how many are left out", wanted <= set(rows), []
