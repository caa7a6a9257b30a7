"""The broker: one node, beside the newest nats-server, each case on both in turn."""

import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import peers
from processes import TARGET, Crowd, Process, build, free_port, load, nats_server
from report import Targets, progress, say, spread, table

OURS, THEIRS = "standin-broker", "nats-server"
# name, messages, words for the load generator, target of CPU (at most) and of throughput (at least), ours ÷ theirs
THROUGHPUT = [
    ("publish only, 16 B", 3_000_000, ["--subscribers", 0, "--payload", 16], 0.5, 1.5),
    ("1→1, 16 B", 2_000_000, ["--payload", 16], 0.5, 1.4),
    ("1→1, 128 B", 1_500_000, ["--payload", 128], 0.5, 1.4),
    ("1→1, 128 B with headers", 1_000_000, ["--payload", 128, "--headers"], 0.5, 1.4),
    ("1→1, 4 KiB", 150_000, ["--payload", 4096], 0.8, 1.1),
    ("1→10, 128 B", 200_000, ["--payload", 128, "--subscribers", 10], 0.5, 1.5),
    ("1→100, 128 B", 20_000, ["--payload", 128, "--subscribers", 100], 0.5, 1.5),
    ("4→4 subjects, 128 B", 400_000, ["--payload", 128, "--publishers", 4, "--own-subjects"], 0.5, 1.4),
    ("queue of 4, 128 B", 1_000_000, ["--payload", 128, "--subscribers", 4, "--queue"], 0.5, 1.4),
]
# name, messages, words, target of CPU and of p50 (both at most)
LATENCY = [
    ("request and reply, 1 client", "request", 20_000, ["--payload", 16, "--requests", 20_000], 0.7, 0.8),
    ("10,000 messages/s, open loop", "latency", 20_000, ["--payload", 16, "--rate", 10_000, "--seconds", 2], 0.7, 0.8),
]
IDLE_CONNECTIONS = 4_000
IDLE_TARGET = 0.25


def ours(folder):
    port = free_port()
    return Process(folder, OURS, TARGET / "release/standin-broker", "-a", "127.0.0.1", "-p", port, port=port)


def servers(folder, running):
    return {
        OURS: running.enter_context(ours(folder)),
        THEIRS: running.enter_context(peers.Node(folder, THEIRS)),
    }


def in_turn(names, number):
    names = list(names)
    turn = number % len(names)
    return names[turn:] + names[:turn]


def ratio(values):
    """Ours ÷ theirs in each run, the median."""
    return median(mine / other for mine, other in zip(values[OURS], values[THEIRS]))


def throughput(folder, runs, part, targets):
    rows = []
    with ExitStack() as running:
        both = servers(folder, running)
        for name, messages, words, cpu_max, rate_min in THROUGHPUT:
            progress(name)
            cpu, rate = {OURS: [], THEIRS: []}, {OURS: [], THEIRS: []}
            for number in range(runs):
                for who in in_turn(both, number):
                    server = both[who]
                    before = server.cpu_ns()
                    address = f"127.0.0.1:{server.port}"
                    done = load("throughput", "--server", address, "--messages", int(messages * part), *words)
                    cpu[who].append(server.cpu_ns_since(before) / 1000 / done["messages"])
                    rate[who].append(done["messages_per_second"] / 1000)
            row = [name]
            for who in (OURS, THEIRS):
                middle, apart = spread(cpu[who])
                row.append(f"{middle:.3f} ± {apart * 50:.0f} %")
            row += [f"**{ratio(cpu):.2f}**", f"{median(rate[OURS]):.0f}", f"{median(rate[THEIRS]):.0f}", f"**{ratio(rate):.2f}**"]
            rows.append(row)
            targets.later(f"{name}: CPU ÷ nats-server's", ratio(cpu), cpu_max, "×")
            targets.later(f"{name}: nats-server's throughput ÷ ours", 1 / ratio(rate), 1 / rate_min, "×")
    say(f"### As fast as it goes, medians of {runs} runs in turn\n")
    head = ["case", "CPU µs per published message", "nats-server's", "÷", "1,000 messages/s", "nats-server's", "÷"]
    table(head, rows)
    targets.tell()


def latency(folder, runs, part, targets):
    rows = []
    with ExitStack() as running:
        both = servers(folder, running)
        for name, measurement, messages, words, cpu_max, p50_max in LATENCY:
            progress(name)
            cpu, p50, p99, p999 = ({OURS: [], THEIRS: []} for _ in range(4))
            for number in range(runs):
                for who in in_turn(both, number):
                    server = both[who]
                    address = f"127.0.0.1:{server.port}"
                    ends = ("--requester", "--responder") if measurement == "request" else ("--publisher", "--subscriber")
                    before = server.cpu_ns()
                    done = load(measurement, ends[0], address, ends[1], address, *words)
                    cpu[who].append(server.cpu_ns_since(before) / 1000 / messages)
                    for values, key in ((p50, "p50_us"), (p99, "p99_us"), (p999, "p999_us")):
                        values[who].append(done[key])
            row = [name, f"{median(cpu[OURS]):.1f}", f"{median(cpu[THEIRS]):.1f}", f"**{ratio(cpu):.2f}**"]
            for values in (p50, p99, p999):
                row += [f"{median(values[OURS]):.0f} / {median(values[THEIRS]):.0f} = **{ratio(values):.2f}**"]
            rows.append(row)
            targets.later(f"{name}: CPU ÷ nats-server's", ratio(cpu), cpu_max, "×")
            targets.later(f"{name}: p50 ÷ nats-server's", ratio(p50), p50_max, "×")
    say(f"### How long it takes, medians of {runs} runs in turn\n")
    head = ["case", "CPU µs per message", "nats-server's", "÷", "p50 µs, ours / theirs", "p99 µs", "p99.9 µs"]
    table(head, rows)
    targets.tell()


def idle(folder, runs, part, targets):
    count = int(IDLE_CONNECTIONS * part)
    kib = {OURS: [], THEIRS: []}
    for number in range(min(runs, 3)):
        for who in in_turn(kib, number):
            progress(f"idle connections on {who}")
            with ExitStack() as running:
                server = running.enter_context(ours(folder) if who == OURS else peers.Node(folder, THEIRS))
                before = server.rss_bytes()
                words = ["idle", "--server", f"127.0.0.1:{server.port}", "--components", count]
                running.enter_context(Crowd(folder, *words))
                kib[who].append((server.rss_bytes() - before) / 1024 / count)
    say(f"### {count:,} idle connections with one subscription each\n")
    rows = [[who, f"{median(kib[who]):.1f}"] for who in (OURS, THEIRS)]
    table(["", "resident KiB for each"], rows)
    targets.check("memory of an idle connection ÷ nats-server's", ratio(kib), IDLE_TARGET, "×")
    say()


PARTS = {"throughput": throughput, "latency": latency, "idle": idle}


def run(parts, quick, fresh):
    if not nats_server().exists():
        print(f"tests/bench: missing: {nats_server()}; tests/run installs it", file=sys.stderr)
        return 69
    if fresh:
        progress("building")
        build("standin-broker")
    say(f"{os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start.\n")
    if quick:
        say("A quick look: too few runs to be quoted.\n")
    targets = Targets()
    with tempfile.TemporaryDirectory(prefix="standin-bench-") as folder:
        for part in parts:
            PARTS[part](Path(folder), 2 if quick else 5, 0.25 if quick else 1.0, targets)
    say("All targets reached." if not targets.missed else f"Targets not reached: {targets.missed}.")
    return 0
