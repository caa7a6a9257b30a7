"""What users, permissions and accounts cost our broker in CPU time of a message."""

import json

from latency import ROUNDS
from pair import OURS, Case, address, start
from processes import Crowd, load
from report import say, table

OPEN, PERMISSIONS, ACCOUNT = "open", "permissions", "account"
TARGET_MAX = 1.10
ALLOW = ["load.>", "s.>", "_INBOX.>", "orders.*.new", "orders.*.paid", "metrics.>", "jobs.*", "status", "logs.*.>", "events.eu.>"]
DENY = ["load.secret.>", "s.*.secret", "admin.>"]
SUBJECTS = 100_000


def settings(who):
    user = {"user": "bench", "password": "secret"}
    if who == OPEN:
        return "debug: false\n"
    if who == ACCOUNT:
        return f"accounts {{ tenant {{ users: [ {json.dumps(user)} ] }} }}\n"
    both = {"allow": ALLOW, "deny": DENY}
    return f"authorization {{ users: [ {json.dumps({**user, 'permissions': {'publish': both, 'subscribe': both}})} ] }}\n"


def run(folder, runs, part, targets):
    cases = []
    for name, run_load in LOADS:
        case = Case(name, (OPEN, PERMISSIONS, ACCOUNT))
        for who in case.in_turn(runs * ROUNDS if run_load is request else runs):
            # A new server for each run: where its memory happens to lie changes the time of a message by up to a tenth.
            with start(folder, OURS, settings(who)) as node:
                run_load(case, who, node, [] if who == OPEN else ["--user", "bench:secret"], folder, part)
        cases.append(case)
    say(f"### Users and accounts, medians of {runs} runs in turn, of requests {runs * ROUNDS}\n")
    say("CPU µs per message of our broker: open to all; with ten allowed and three denied patterns; with the clients in an account.\n")
    table(["case", *cases[0].who, "permissions ÷ open", "account ÷ open"], [row(case) for case in cases])
    for case in cases:
        for who in (PERMISSIONS, ACCOUNT):
            targets.later(f"{case.name}: CPU with {who} ÷ open", case.ratio("cpu", who, OPEN), TARGET_MAX, "×")
    targets.tell()


def flow(case, who, node, log_in, folder, part):
    messages = int(3_000_000 * part)
    measure(case, who, node, lambda: load("throughput", "--server", address(node), "--messages", messages, *log_in))


def request(case, who, node, log_in, folder, part):
    ends = ["--requester", address(node), "--responder", address(node)]
    requests = int(100_000 * part)
    measure(case, who, node, lambda: load("request", *ends, "--requests", requests, "--clients", 16, *log_in), requests)


def varied(case, who, node, log_in, folder, part):
    words = ["--server", address(node), "--subscriptions", SUBJECTS, "--seconds", 2 * part, *log_in]
    with Crowd(folder, "subscriptions", *words) as crowd:
        measure(case, who, node, lambda: crowd.ask("publish"))


LOADS = [
    ("1→1, 128 B", flow),
    ("request and reply, 16 clients", request),
    (f"128 B to {SUBJECTS:,} subjects", varied),
]


def measure(case, who, node, run_load, messages=None):
    """Runs the load, and adds the CPU time of each message to the case."""
    before = node.cpu_ns()
    done = run_load()
    case.add("cpu", who, node.cpu_ns_since(before) / 1000 / (messages or done["messages"]))


def row(case):
    ratios = [f"**{case.ratio('cpu', who, OPEN):.2f}**" for who in (PERMISSIONS, ACCOUNT)]
    return [case.name, *(case.spread("cpu", who) for who in case.who), *ratios]
