"""Medians, quantiles, tables, and targets."""

import sys
from statistics import median


def say(text=""):
    print(text, flush=True)


def progress(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def spread(values):
    """Returns the median, and the spread of the runs: (max - min) / median."""
    middle = median(values)
    return middle, (max(values) - min(values)) / middle if middle else 0.0


def table(head, rows):
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |"
    say(line(head))
    say("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        say(line(row))
    say()


class Targets:
    """Limits for figures, and how many were missed."""

    def __init__(self):
        self.missed = 0
        self.waiting = []

    def later(self, *figure):
        """Adds a check, which `tell` performs after the table is printed."""
        self.waiting.append(figure)

    def tell(self):
        for figure in self.waiting:
            self.check(*figure)
        self.waiting = []
        say()

    def check(self, what, value, limit, unit):
        reached = value <= limit
        self.missed += not reached
        say(f"- {what}: {value:.3g} {unit}, target ≤ {limit:g} {unit}: {'reached' if reached else '**not reached**'}")
