"""CPU time per message and added latency of each proxy, with publisher and subscriber both connected through it."""

from contextlib import ExitStack
from statistics import median

import peers
from processes import free_port, load
from report import progress, say, spread, table

PAYLOADS = {16: 1_500_000, 128: 1_200_000, 4096: 120_000}  # bytes: messages of one run
RATE = 5_000  # messages per second, for the latency
LATENCY_REPEATS = 2  # in each run, because the scheduler moves a median by several µs
DIRECT = "direct (the node itself)"
PEER = "HAProxy (TCP)"
SIDECAR = "**sidecar**"


class Position:
    """One proxy between the components and the node, or the node itself."""

    def __init__(self, name, process, port):
        self.name, self.process, self.port = name, process, port
        self.cpu, self.rate, self.p50, self.p99, self.p999 = ({size: [] for size in PAYLOADS} for _ in range(5))

    def load(self, *words):
        try:
            return load(*words)
        except RuntimeError as error:
            raise RuntimeError(f"through {self.name}: {error}\n{self.process.tail()}") from error

    def flow(self, size, messages):
        address = f"127.0.0.1:{self.port}"
        before = self.process.cpu_ns()
        done = self.load("flow", "--publisher", address, "--subscriber", address, "--payload", size, "--messages", messages)
        self.cpu[size].append(self.process.cpu_ns_since(before) / 1000 / messages)
        self.rate[size].append(done["messages_per_second"])

    def latency(self, size, seconds):
        address = f"127.0.0.1:{self.port}"
        words = ["--publisher", address, "--subscriber", address, "--payload", size, "--rate", RATE]
        done = self.load("latency", *words, "--seconds", seconds)
        self.p50[size].append(done["p50_us"])
        self.p99[size].append(done["p99_us"])
        self.p999[size].append(done["p999_us"])


def positions(folder, running):
    leaf_port = free_port()
    node = running.enter_context(peers.Node(folder, "node", leaf_port=leaf_port))
    between = {
        "bare relay, 64 KiB": lambda: peers.relay(folder, node.port),
        PEER: lambda: peers.haproxy(folder, node.port),
        "nginx stream": lambda: peers.nginx(folder, node.port),
        "nats-server leaf node": lambda: peers.leaf(folder, leaf_port),
        SIDECAR: lambda: peers.sidecar(folder, [node.port]),
    }
    found = [Position(DIRECT, node, node.port)]
    for name, start in between.items():
        if process := start():
            running.enter_context(process)
            found.append(Position(name, process, process.port))
    return found


def run(folder, runs, part, targets):
    with ExitStack() as running:
        all_positions = positions(folder, running)
        for number in range(runs):
            progress(f"messages that pass: run {number + 1} of {runs}")
            for size, messages in PAYLOADS.items():
                # Each run begins with another position, so that the order does not favour one.
                turn = number % len(all_positions)
                in_turn = all_positions[turn:] + all_positions[:turn]
                for position in in_turn:
                    position.flow(size, int(messages * part))
                for _ in range(LATENCY_REPEATS):
                    for position in in_turn:
                        position.latency(size, 1.0 * part + 0.5)
    named = {position.name: position for position in all_positions}
    for size in PAYLOADS:
        show(size, runs, all_positions, named[PEER])
    check(named, targets)


def added(position, direct, size, what):
    """Returns the latency of each run above that of the direct connection in the same run."""
    pairs = zip(getattr(position, what)[size], getattr(direct, what)[size])
    return [through - straight for through, straight in pairs]


def ratio(position, peer, size):
    """Returns the CPU time ÷ the peer's, for each run."""
    return [ours / theirs for ours, theirs in zip(position.cpu[size], peer.cpu[size])]


def show(size, runs, all_positions, peer):
    say(f"### {size} B payload, 1 publisher → 1 subscriber, medians of {runs} interleaved runs\n")
    direct = all_positions[0]
    rows = []
    for position in all_positions:
        cpu, apart = spread(position.cpu[size])
        row = [position.name, f"{cpu:.3f} ± {apart * 50:.0f} %"]
        row += [f"{median(ratio(position, peer, size)):.2f}", f"{median(position.rate[size]) / 1000:.0f}"]
        for what in ("p50", "p99", "p999"):
            if position is direct:
                row.append(f"({median(getattr(direct, what)[size]):.0f})")
            else:
                row.append(f"{median(added(position, direct, size, what)):.0f}")
        rows.append(row)
    head = ["through", "CPU µs per message", "÷ HAProxy", "1,000 messages/s"]
    table(head + [f"added {what}, µs" for what in ("p50", "p99", "p99.9")], rows)


def check(named, targets):
    ours, peer, direct = named[SIDECAR], named[PEER], named[DIRECT]
    for size in PAYLOADS:
        value = median(ratio(ours, peer, size))
        targets.check(f"CPU per message of {size} B ÷ HAProxy's", value, 1.0, "×")
    for size in PAYLOADS:
        theirs = median(added(peer, direct, size, "p50"))
        targets.check(f"added p50 latency, {size} B", median(added(ours, direct, size, "p50")), round(theirs, 1), "µs")
    say()
