"""CPU time per message and per request, and added latency, of each proxy. Both components are connected through it."""

from contextlib import ExitStack
from statistics import median

import peers
from processes import free_port, load
from report import progress, say, spread, table

PAYLOADS = {16: 2_000_000, 128: 1_500_000, 4096: 750_000}  # bytes: messages of one run
REQUESTERS = {1: 20_000, 64: 150_000}  # components that each have one request in flight: requests of one run
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
        self.request_cpu, self.request_p50 = ({count: [] for count in REQUESTERS} for _ in range(2))

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

    def request(self, requesters, requests):
        address = f"127.0.0.1:{self.port}"
        before = self.process.cpu_ns()
        words = ["--requester", address, "--responder", address, "--clients", requesters]
        done = self.load("request", *words, "--requests", requests)
        self.request_cpu[requesters].append(self.process.cpu_ns_since(before) / 1000 / requests)
        self.request_p50[requesters].append(done["p50_us"])


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
            # Each run begins with another position, so that the order does not favour one.
            turn = number % len(all_positions)
            in_turn = all_positions[turn:] + all_positions[:turn]
            for requesters, requests in REQUESTERS.items():
                for position in in_turn:
                    position.request(requesters, int(requests * part))
            for size, messages in PAYLOADS.items():
                for position in in_turn:
                    position.flow(size, int(messages * part))
                for _ in range(LATENCY_REPEATS):
                    for position in in_turn:
                        position.latency(size, 1.0 * part + 0.5)
    named = {position.name: position for position in all_positions}
    for size in PAYLOADS:
        show(size, runs, all_positions, named[PEER])
    for requesters in REQUESTERS:
        show_requests(requesters, runs, all_positions, named[PEER])
    check(named, targets)


def added(position, direct, size, what):
    """Returns the added latency of each run: the latency minus that of the direct connection in the same run."""
    pairs = zip(getattr(position, what)[size], getattr(direct, what)[size])
    return [through - straight for through, straight in pairs]


def ratio(ours, theirs):
    """Returns the median of ours ÷ theirs over the runs."""
    return median(one / other for one, other in zip(ours, theirs))


def show(size, runs, all_positions, peer):
    say(f"### {size} B payload, 1 publisher → 1 subscriber, medians of {runs} interleaved runs\n")
    direct = all_positions[0]
    rows = []
    for position in all_positions:
        cpu, apart = spread(position.cpu[size])
        row = [position.name, f"{cpu:.3f} ± {apart * 50:.0f} %"]
        row += [f"{ratio(position.cpu[size], peer.cpu[size]):.2f}", f"{median(position.rate[size]) / 1000:.0f}"]
        for what in ("p50", "p99", "p999"):
            if position is direct:
                row.append(f"({median(getattr(direct, what)[size]):.0f})")
            else:
                row.append(f"{median(added(position, direct, size, what)):.0f}")
        rows.append(row)
    head = ["through", "CPU µs per message", "÷ HAProxy", "1,000 messages/s"]
    table(head + [f"added {what}, µs" for what in ("p50", "p99", "p99.9")], rows)


def show_requests(requesters, runs, all_positions, peer):
    say(f"### Requests of 128 B, requesters: {requesters}, medians of {runs} interleaved runs\n")
    rows = []
    for position in all_positions:
        row = [position.name]
        for ours, theirs in (
            (position.request_cpu[requesters], peer.request_cpu[requesters]),
            (position.request_p50[requesters], peer.request_p50[requesters]),
        ):
            middle, apart = spread(ours)
            row += [f"{middle:.1f} ± {apart * 50:.0f} %", f"{ratio(ours, theirs):.2f}"]
        rows.append(row)
    table(["through", "CPU µs per request", "÷ HAProxy", "p50, µs", "÷ HAProxy"], rows)


def check(named, targets):
    ours, peer, direct = named[SIDECAR], named[PEER], named[DIRECT]
    for size in PAYLOADS:
        targets.check(f"CPU per message of {size} B ÷ HAProxy's", ratio(ours.cpu[size], peer.cpu[size]), 0.9, "×")
    for count in REQUESTERS:
        value = ratio(ours.request_cpu[count], peer.request_cpu[count])
        targets.check(f"CPU per request ÷ HAProxy's, requesters: {count}", value, 0.9, "×")
    for size in PAYLOADS:
        theirs = median(added(peer, direct, size, "p50"))
        targets.check(f"added p50 latency, {size} B", median(added(ours, direct, size, "p50")), round(theirs, 1), "µs")
    say()
