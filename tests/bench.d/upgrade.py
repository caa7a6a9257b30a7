"""Upgrades of the sidecar (SIGUSR2): how long sessions stand still, and what is lost, repeated or disordered under load."""

import re
import resource
import signal
import socket
import threading
import time
from contextlib import ExitStack

import peers
from processes import Crowd, standin_broker, until
from report import progress, quantile, say, table
from rolling import COUNTS, cluster

# Sessions, and the target for the pause in ms.
CROWDS = [(1_000, 100), (10_000, 1_000)]
UPGRADES = 50
FILES_OF_SIDECAR = 200  # file descriptors, except those of sessions
LOADED_UPGRADES = 20
RATE = 20_000
DONE = re.compile(r"sidecar upgraded.* sessions=(\d+) pause_ms=([0-9.]+)")


def run(folder, runs, part, targets):
    pauses(folder, part, targets)
    under_load(folder, part, targets)


def upgraded(sidecar):
    """Sends SIGUSR2 and waits for the end of the upgrade. Returns sessions and pause in ms."""
    seen = sidecar.log.stat().st_size
    sidecar.signal(signal.SIGUSR2)

    def last():
        with sidecar.log.open("rb") as log:
            log.seek(seen)
            new = re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode(errors="replace"))
        if "upgrade refused" in new:
            raise RuntimeError(f"upgrade refused:\n{sidecar.tail()}")
        return DONE.search(new)

    # Looks are rare, because they take the time of a processor from the upgrade.
    sessions, pause = until("the sidecar is upgraded", last, every=0.1).groups()
    return int(sessions), float(pause)


class Witness:
    """A component that sends a PING every 5 ms and notes the longest time without a PONG."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        self.longest, self.is_over = 0.0, False
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        self.socket.settimeout(0.005)
        heard = time.monotonic()
        while not self.is_over:
            self.socket.sendall(b"PING\r\n")
            try:
                if not self.socket.recv(4096):
                    raise RuntimeError("the witness was disconnected")
            except TimeoutError:
                continue
            now = time.monotonic()
            self.longest = max(self.longest, now - heard)
            heard = now
            time.sleep(0.005)

    def take_ms(self):
        longest, self.longest = self.longest, 0.0
        return 1000 * longest

    def end(self):
        self.is_over = True
        self.thread.join()


def pauses(folder, part, targets):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    upgrades = max(3, int(UPGRADES * part))
    rows, checks = [], []
    for wanted, target in CROWDS:
        count = min(wanted, (files - FILES_OF_SIDECAR) // 2)
        progress(f"{upgrades} upgrades with {count:,} sessions")
        with ExitStack() as running:
            node = running.enter_context(peers.Node(folder, "node", program=standin_broker()))
            sidecar = running.enter_context(peers.sidecar(folder, [node.port], name=f"sidecar-{count}"))
            words = ["idle", "--server", f"127.0.0.1:{sidecar.port}", "--components", count]
            running.enter_context(Crowd(folder, *words))
            witness = Witness(sidecar.port)
            running.callback(witness.end)
            before = sidecar.rss_bytes()
            paused, silent = [], []
            for _ in range(upgrades):
                witness.take_ms()
                sessions, pause = upgraded(sidecar)
                if sessions != count + 1:
                    raise RuntimeError(f"{sessions} of {count + 1} sessions went on")
                time.sleep(0.3)
                paused.append(pause)
                silent.append(witness.take_ms())
            after = sidecar.rss_bytes()
        figures = [f"{quantile(values, of):.1f}" for values in (paused, silent) for of in (0.5, 0.99)]
        rows.append([f"{count:,}", upgrades, *figures, f"{max(silent):.1f}", f"{before / 2**20:.1f}", f"{after / 2**20:.1f}"])
        checks.append((f"pause with {count:,} sessions, p99", quantile(silent, 0.99), target, "ms"))
    say("### The sidecar replaces itself (SIGUSR2) with idle sessions\n")
    say("The pause is that of the log: from the first session at rest until all have gone on. The silence is the longest time without a PONG")
    say("of a component that sends a PING every 5 ms.\n")
    table(["sessions", "upgrades", "pause ms, p50", "p99", "silence ms, p50", "p99", "max", "memory before, MiB", "after"], rows)
    for check in checks:
        targets.check(*check)
    say()


def under_load(folder, part, targets):
    upgrades = max(3, int(LOADED_UPGRADES * part))
    progress(f"{upgrades} upgrades at {RATE:,} messages per second")
    with ExitStack() as running:
        nodes = cluster(folder, 0, running)
        sidecar = running.enter_context(peers.sidecar(folder, [node.port for node in nodes], name="loaded"))
        crowd = running.enter_context(Crowd(folder, "moves", "--servers", f"127.0.0.1:{sidecar.port}", "--rate", RATE))
        time.sleep(1)
        silences, paused = [], []
        for _ in range(upgrades):
            crowd.tell("mark")
            paused.append(upgraded(sidecar)[1])
            time.sleep(0.5)
            silences += crowd.ask("report")["silences_ms"]
        result = crowd.ask("stop")
    say(f"### {upgrades} upgrades in a row under load: 50 components, {RATE:,} messages per second\n")
    sums = [result[count] + result.get(f"group_{count}", 0) for count in ("lost", "twice", "disordered")]
    figures = [f"{quantile(silences, of):.1f}" for of in (0.5, 0.99)]
    row = [f"{result['published']:,}", *sums, f"{result['failed_requests']} of {result['requests']}", result["disconnects"]]
    row += [f"{quantile(paused, 0.5):.1f}", f"{max(paused):.1f}", *figures, f"{max(silences):.1f}"]
    heads = ["published", "lost", "twice", "disordered", "requests failed", "disconnects", "pause ms, p50", "max"]
    table([*heads, "silence ms, p50", "p99", "max"], [row])
    faults = sum(result[count] for count in COUNTS)
    targets.check("lost, repeated or disordered messages, failed requests, lost connections", faults, 0, "")
    say()
