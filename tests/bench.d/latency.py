"""Latency and CPU time of a message and of a reply, through our broker and nats-server."""

from contextlib import ExitStack

from pair import Case, address, both
from processes import load
from report import say, table

# Targets (ours ÷ nats-server's): the rate at least, the others at most.
REQUEST_TARGETS = {"cpu": 0.7, "rate": 1.3, "p50": 0.8}
LATENCY_TARGETS = {"cpu": 0.7, "p50": 0.8, "p99": 1.0}
# name, measurement, messages, arguments of the load generator, targets
CASES = [
    ("request and reply, 1 client", "request", 20_000, ["--requests", 20_000], REQUEST_TARGETS),
    ("request and reply, 16 clients", "request", 100_000, ["--requests", 100_000, "--clients", 16], REQUEST_TARGETS),
    ("10,000 messages/s, open loop", "latency", 20_000, ["--rate", 10_000, "--seconds", 2], LATENCY_TARGETS),
]
ENDS = {"request": ("--requester", "--responder"), "latency": ("--publisher", "--subscriber")}
QUANTILES = {"p50": "p50_us", "p99": "p99_us", "p99.9": "p999_us"}
HEAD = ["case", "CPU µs per message", "requests/s", *(f"{what} µs" for what in QUANTILES)]
PAYLOAD = 16
# A run takes only a second or two. The scheduler can change its p99 by half or more, so there are more runs.
ROUNDS = 3


def run(folder, runs, part, targets):
    cases = []
    runs *= ROUNDS
    with ExitStack() as running:
        servers = both(folder, running)
        for name, measurement, messages, words, limits in CASES:
            case = Case(name)
            for who in case.in_turn(runs):
                before = servers[who].cpu_ns()
                once(case, who, servers[who], measurement, words)
                case.add("cpu", who, servers[who].cpu_ns_since(before) / 1000 / messages)
            cases.append(case)
            check(case, limits, targets)
    say(f"### Latency, medians of {runs} runs in turn\n")
    say("In each cell: ours / nats-server's = ratio.\n")
    table(HEAD, [row(case) for case in cases])
    targets.tell()
    return cases


def once(case, who, server, measurement, words):
    """Runs the load generator against one server, and adds the figures to the case."""
    ends = [word for end in ENDS[measurement] for word in (end, address(server))]
    return measure(case, who, measurement, [*ends, *words])


def measure(case, who, measurement, words):
    """Runs the load generator with these arguments, and adds the figures to the case."""
    done = load(measurement, "--payload", PAYLOAD, *words)
    for what, key in QUANTILES.items():
        case.add(what, who, done[key])
    if measurement == "request":
        case.add("rate", who, done["requests_per_second"])
    return done


def check(case, limits, targets):
    for what, limit in limits.items():
        if what == "rate":
            case.check_rate_later(targets, limit)
        else:
            case.check_later(targets, what, "CPU" if what == "cpu" else what, limit)


def row(case):
    return [case.name, case.beside("cpu", 1), case.beside("rate"), *map(case.beside, QUANTILES)]
