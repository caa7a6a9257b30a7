"""CPU time per message and throughput of our broker and nats-server at full speed."""

from contextlib import ExitStack

from pair import OURS, THEIRS, Case, address, both
from processes import load
from report import say, table

# name, messages, arguments of the load generator, targets (ours ÷ nats-server's): CPU at most, throughput at least
CASES = [
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
HEAD = ["case", "CPU µs per published message", "nats-server's", "÷", "1,000 messages/s", "nats-server's", "÷"]


def run(folder, runs, part, targets):
    cases = []
    with ExitStack() as running:
        servers = both(folder, running)
        for name, messages, words, cpu_max, rate_min in CASES:
            case = Case(name)
            for who in case.in_turn(runs):
                server = servers[who]
                measure(case, who, server, ["--server", address(server), "--messages", int(messages * part), *words])
            cases.append(case)
            case.check_later(targets, "cpu", "CPU", cpu_max)
            case.check_rate_later(targets, rate_min)
    say(f"### Full speed, medians of {runs} runs in turn\n")
    table(HEAD, [row(case) for case in cases])
    targets.tell()
    return cases


def measure(case, who, servers, words):
    """Runs the load generator, and adds its figures and the CPU time of the server, or of the cluster, to the case."""
    before = servers.cpu_ns()
    done = load("throughput", *words)
    case.add("cpu", who, servers.cpu_ns_since(before) / 1000 / done["messages"])
    case.add("rate", who, done["messages_per_second"])


def row(case):
    rates = [f"{case.median('rate', who) / 1000:.0f}" for who in (OURS, THEIRS)]
    cpu = [case.spread("cpu", who) for who in (OURS, THEIRS)]
    return [case.name, *cpu, f"**{case.ratio('cpu'):.2f}**", *rates, f"**{case.ratio('rate'):.2f}**"]
