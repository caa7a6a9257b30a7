"""The report of a run: one HTML file that needs no other, with charts, faults and a verdict for each promise."""

from collections import Counter
from html import escape

from faults import ALL
from findings import MISSING
from judge import PROMISES
from plot import Chart, timeline

MIB = 1 << 20
# Limit on the different findings that are shown for each promise.
SHOWN_MAX = 12
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --faint: #59636e; --line: #d1d9e0; --band: #ffb86b55; --good: #1a7f37; --bad: #d1242f }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #9198a1; --line: #3d444d; --band: #bb800955; --good: #3fb950; --bad: #ff7b72 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } .faint { color: var(--faint) } .good { color: var(--good) } .bad { color: var(--bad) }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; font-size: 14px } td, th { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } .scroll { overflow-x: auto }
svg { width: 100%; height: auto; margin: .3rem 0 } svg text { fill: var(--ink); font: 12px system-ui, sans-serif } svg .title { font-weight: 600 } svg .tick { fill: var(--faint); font-size: 11px }
.band { fill: var(--band) } .fault { fill: #d9822b } .grid { stroke: var(--line) } .line { fill: none; stroke-width: 1.5 } code { font-size: 13px }
"""


def write(path, run):
    """Writes the report of a finished run."""
    verdict = '<span class="good">every promise was kept</span>'
    if broken := run.findings.unexplained():
        verdict = f'<span class="bad">{len(broken)} findings that no fault explains</span>'
    elif unnoticed := sum(not as_wanted for _, as_wanted, _ in run.planted):
        verdict = f'<span class="bad">{unnoticed} planted errors were not noticed</span>'
    facts = [
        f"seed <code>{run.seed}</code>", f"{run.end - run.start:.0f} s", f"{len(run.windows)} faults",
        f"{run.traffic.published:,} messages published, {run.traffic.received:,} received", *map(escape, run.versions),
    ]  # fmt: skip
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Soak of {run.seed}</title><style>{STYLE}</style>",
        f"<h1>Soak: {verdict}</h1><p class='faint'>{' · '.join(facts)}</p>",
        f"<p>Run it again: <code>{escape(again(run))}</code></p>",
        *charts(run),
        promises(run),
        found(broken, run.start),
        faults(run),
        planted(run),
        "</html>",
    ]
    path.write_text("\n".join(parts))


def again(run):
    """Returns the command that makes the same faults in the same order."""
    only = "" if len(run.kinds) == len(ALL) else f" --only {','.join(kind.name for kind in run.kinds)}"
    rate = "" if run.rate == 1 else f" --rate {run.rate:g}"
    return f"tests/soak {run.minutes:g} --seed {run.seed}{only}{rate}"


def charts(run):
    end = run.end - run.start
    chart = lambda title, unit: Chart(title, unit, end, run.windows, run.start)
    samples = run.samples.traffic_samples
    rates = chart("Messages per second. Bands are faults: point at one for its name", "/s")
    for column, name in ((1, "published"), (2, "received")):
        rates.line(name, rate(samples, column, run.start))
    slow = chart("Slowest PONG", " s").line("seconds", [(sample[0] - run.start, sample[3]) for sample in samples])
    lost = chart("Missing messages, by the second in which they were published", "")
    for name, explained in (("explained by a fault", True), ("not explained", False)):
        lost.bars(name, losses(run, explained))
    memory, files, cpu = chart("Memory (RSS)", " MiB"), chart("Descriptors", ""), chart("CPU", " %")
    for name, series in run.samples.programs.items():
        memory.line(name, [(at - run.start, rss / MIB) for at, _, rss, _, _ in series])
        files.line(name, [(at - run.start, count) for at, _, _, count, _ in series])
        busy = rate([(sample[0], sample[4], sample[1]) for sample in series], 1, run.start, life=2)
        cpu.line(name, [(at, value if value is None else 100 * value) for at, value in busy])
    pictures = [one.svg() for one in (rates, slow, lost, memory, files, cpu)]
    return [timeline(run.windows, end, run.start), *pictures]


def rate(samples, column, start, life=None):
    """Returns the change per second of one column. There is no value where a new life of the program begins."""
    points = []
    for before, after in zip(samples, samples[1:]):
        same = life is None or before[life] == after[life]
        passed = after[0] - before[0]
        points.append((after[0] - start, (after[column] - before[column]) / passed if same and passed else None))
    return points


def losses(run, explained):
    counts = Counter()
    for finding in run.findings.list:
        if finding.kind == MISSING and bool(finding.explained_by) == explained:
            counts[int(finding.at - run.start)] += finding.count
    return sorted(counts.items())


def table(head, rows, numbers=()):
    """Returns a table. `numbers` are the columns with numbers."""
    cells = lambda tag, row: "".join(
        f"<{tag}{' class=number' if column in numbers else ''}>{cell}</{tag}>" for column, cell in enumerate(row)
    )
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", head)}</tr>{body}</table></div>'


def promises(run):
    rows = []
    for promise, text in PROMISES.items():
        broken = len(run.findings.unexplained(promise))
        explained = sum(one.count for one in run.findings.list if one.promise == promise and one.explained_by)
        verdict = f'<span class="bad">broken {broken} times</span>' if broken else '<span class="good">kept</span>'
        rows.append((promise, escape(text), verdict, f"{explained:,}" if explained else ""))
    return "<h2>Promises</h2>" + table(("", "promise", "verdict", "explained by faults"), rows, numbers=[3])


def found(broken, start):
    if not broken:
        return ""
    rows = [(promise, f"{at - start:.1f}", escape(text)) for promise, at, text in summary(broken)]
    return "<h2>Not explained</h2>" + table(("promise", "at (s)", "what was found"), rows, numbers=[1])


def summary(broken):
    """Returns (promise, time, text) of the first different findings of each promise, and how many there are of each and left out."""
    firsts, counts = {}, Counter((one.promise, one.text) for one in broken)
    for finding in broken:
        firsts.setdefault((finding.promise, finding.text), finding)
    shown, rest, rows = Counter(), {}, []
    for (promise, text), finding in firsts.items():
        shown[promise] += 1
        count = counts[promise, text]
        if shown[promise] <= SHOWN_MAX:
            rows.append((promise, finding.at, f"{text} ({count} times)" if count > 1 else text))
        else:
            first, left = rest.get(promise, (finding.at, 0))
            rest[promise] = (first, left + count)
    return rows + [(promise, at, f"and {left} more") for promise, (at, left) in rest.items()]


def faults(run):
    rows = []
    for window in run.windows:
        counts = [f"{window.explained.get(kind, 0) or ''}" for kind in ("missing", "late", "closed")]
        times = [
            f"{window.start - run.start:.1f}",
            f"{window.healed - window.start:.1f}",
            f"{window.end - window.healed:.1f}",
        ]
        rows.append((*times, window.fault, escape(window.detail), max(0, window.moved), *counts))
    head = ("at (s)", "harm (s)", "recovery (s)", "fault", "", "sessions moved", "missing", "late", "closed")
    return "<h2>Faults</h2>" + table(head, rows, numbers=[0, 1, 2, 5, 6, 7, 8])


def planted(run):
    if not run.planted:
        return ""
    words = {True: '<span class="good">as it must be</span>', False: '<span class="bad">not noticed</span>'}
    rows = [(escape(name), words[as_wanted]) for name, as_wanted, _ in run.planted]
    return "<h2>Errors planted to test the checkers</h2>" + table(("planted", "found"), rows)
