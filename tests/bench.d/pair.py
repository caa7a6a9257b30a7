"""Starts our broker and the newest nats-server, runs each case on both in turn, and holds the figures of a case."""

from statistics import median

import peers
from processes import Process, free_port, standin_broker
from report import progress, spread

OURS, THEIRS = "standin-broker", "nats-server"


def start(folder, who, settings=""):
    """Starts one program. `settings` are in the format of nats-server."""
    if settings:
        return peers.Node(folder, who, program=None if who == THEIRS else standin_broker(), settings=settings)
    if who == THEIRS:
        return peers.Node(folder, THEIRS)
    port = free_port()
    return Process(folder, OURS, standin_broker(), "-a", "127.0.0.1", "-p", port, port=port)


def both(folder, running, settings=""):
    """Starts both programs. `running` is the ExitStack that ends them."""
    return {who: running.enter_context(start(folder, who, settings)) for who in (OURS, THEIRS)}


def address(server):
    return f"127.0.0.1:{server.port}"


class Case:
    """Figures of all runs of one case, by what was measured and by program."""

    def __init__(self, name, who=(OURS, THEIRS)):
        self.name = name
        self.who = who
        self.figures = {}

    def in_turn(self, runs):
        """Yields the name of the program to measure next. Each is measured once in each run, and they take turns to be first."""
        for number in range(runs):
            turn = number % len(self.who)
            for who in self.who[turn:] + self.who[:turn]:
                progress(f"{self.name}, {who}: run {number + 1} of {runs}")
                yield who

    def add(self, what, who, value):
        self.figures.setdefault(what, {one: [] for one in self.who})[who].append(value)

    def median(self, what, who):
        return median(self.figures[what][who])

    def ratio(self, what, who=OURS, other=THEIRS):
        """Returns the median of one program's figures ÷ the other's over the runs."""
        mine, theirs = self.figures[what][who], self.figures[what][other]
        return median(one / other for one, other in zip(mine, theirs))

    def spread(self, what, who):
        middle, apart = spread(self.figures[what][who])
        return f"{middle:.3f} ± {apart * 50:.0f} %"

    def beside(self, what, digits=0):
        """Returns ours, theirs and the ratio in one cell, or a dash if `what` was not measured."""
        if what not in self.figures:
            return "–"
        mine, theirs = (f"{self.median(what, who):,.{digits}f}" for who in (OURS, THEIRS))
        return f"{mine} / {theirs} = **{self.ratio(what):.2f}**"

    def check_later(self, targets, what, named, limit):
        targets.later(f"{self.name}: {named} ÷ nats-server's", self.ratio(what), limit, "×")

    def check_rate_later(self, targets, least):
        """Adds a check of the rate. A check has an upper limit, so this one is of the inverse ratio."""
        targets.later(f"{self.name}: nats-server's throughput ÷ ours", 1 / self.ratio("rate"), 1 / least, "×")
