"""Latency of messages while very many clients log in with bcrypt passwords, and the logins that succeed meanwhile."""

import time
from contextlib import ExitStack
from statistics import median

from pair import OURS, THEIRS, address, start
from processes import Crowd, Load
from report import progress, say, table

LOGINS = 1_000  # each second
SECONDS = 5
USERS = LOGINS * SECONDS  # so that each password of a storm has to be checked
LOGGED_IN_SECONDS = 0.2  # until the measured clients have logged in
SESSIONS = 100
HASH = "$2b$11$abcdefghijklmnopqrstuuViuGI07N4McP9Kl.tD6XMEzyuvcY8LG"  # cost 11, of "secret"
GOOD = ["--user", "good:plain"]
# name, words for the load generator
STORMS = [
    ("none", None),
    ("one user, right password", []),
    ("wrong passwords", ["--wrong"]),
    (f"{USERS:,} users, right passwords", ["--users", USERS]),
]
UNHEARD = float("inf")


def settings():
    users = ["{ user: good, password: plain }", f'{{ user: storm, password: "{HASH}" }}']
    users += [f'{{ user: storm{number}, password: "{HASH}" }}' for number in range(USERS)]
    return "authorization { users: [\n" + "\n".join(users) + "\n] }\n"


def run(folder, runs, part, targets):
    runs = max(1, runs // 3)
    rows, lost = [], 0
    for name, words in STORMS:
        for who in (OURS, THEIRS):
            figures = []
            # nats-server may take a minute, so once is enough.
            for number in range(runs if who == OURS else 1):
                progress(f"storm of logins, {name}, {who}: run {number + 1}")
                figures.append(once(folder, who, words))
            rows.append(row(name, who, words, figures))
            lost += sum(one["lost"] for one in figures) if who == OURS else 0
    say(f"### {LOGINS:,} logins a second with bcrypt at cost 11, medians of {runs} runs, and one of nats-server\n")
    say(f"Messages of another user at 1,000/s, and {SESSIONS} idle sessions of that user, of which lost ones are counted for our broker only.\n")
    head = ["logins", "server", "p50 µs", "p99 µs", "p99.9 µs", "logins that succeed, each second", "their p50 ms"]
    table([*head, "refused or without an answer", "sessions lost"], rows)
    targets.check("sessions lost in a storm", lost, 0, "")
    say()


def once(folder, who, storm_words):
    with ExitStack() as running:
        server = running.enter_context(start(folder, who, settings()))
        at = ["--server", address(server)]
        sessions = running.enter_context(Crowd(folder, "idle", *at, "--components", SESSIONS, *GOOD))
        ends = ["--publisher", address(server), "--subscriber", address(server)]
        messages = running.enter_context(Load(folder, "latency", *ends, "--rate", 1_000, "--seconds", SECONDS, *GOOD))
        storm = None
        if storm_words is not None:
            # The measured clients are connected by now. The first tenth of their messages is not counted.
            time.sleep(LOGGED_IN_SECONDS)
            words = [*at, "--rate", LOGINS, "--seconds", SECONDS, "--user", "storm:secret", *storm_words]
            storm = running.enter_context(Load(folder, "storm", *words))
        figures = latencies(messages)
        if storm:
            figures |= {f"storm_{key}": value for key, value in storm.result().items()}
        if who == OURS:  # nats-server may check passwords of the storm for minutes before it accepts another publisher
            heard = sessions.ask(f"hear {address(server)}")
            figures["lost"] = heard["lost"] + heard["deaf"]
        return figures


def latencies(messages):
    try:
        return messages.result()
    except RuntimeError as error:
        progress(f"no latency: {error}")
        return {key: UNHEARD for key in ("p50_us", "p99_us", "p999_us")}


def row(name, who, words, figures):
    middle = lambda key: median(one[key] for one in figures)
    cells = [f"{middle(key):,.0f}" if middle(key) < UNHEARD else "–" for key in ("p50_us", "p99_us", "p999_us")]
    ends = ["–"] * 3
    if words is not None:
        failed = middle("storm_refused") + middle("storm_unanswered")
        succeeded = middle("storm_succeeded_per_second")
        login_ms = f"{middle('storm_p50_us') / 1000:,.1f}" if succeeded else "–"
        ends = [f"{succeeded:,.0f}", login_ms, f"{failed / middle('storm_begun') * 100:.0f} %"]
    return [name, who, *cells, *ends, sum(one["lost"] for one in figures) if who == OURS else "–"]
