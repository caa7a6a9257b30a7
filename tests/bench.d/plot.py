"""A picture of the broker's medians relative to those of nats-server: horizontal bars, as plain SVG."""

from xml.sax.saxutils import escape

from pair import OURS, THEIRS

WIDTH, MARGIN = 960, 24
HEAD, FOOT = 116, 40
ROW, BAR, BAR_GAP = 42, 13, 2
LABELS_END = 236
TEXT_ROOM = 108  # for the values, right of the longest bar
GAP = 20  # between the two halves
HALF = (WIDTH - MARGIN - LABELS_END - GAP) // 2
COLOURS = {OURS: "#1f6feb", THEIRS: "#9aa4b0"}
# With its own background the picture is readable also on a dark page.
PAPER, INK, FAINT, LINE = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"


def write(path, cases, note):
    height = HEAD + ROW * len(cases) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, -apple-system, \'Segoe UI\', \'DejaVu Sans\', sans-serif" font-size="12">',
        f"<title>{OURS} beside {THEIRS}: CPU time per message and messages per second</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}" stroke="{LINE}"/>',
        text(MARGIN, 34, f"{OURS} beside {THEIRS}", size=18, weight="bold"),
        text(MARGIN, 54, f"{THEIRS} = 1", fill=FAINT),
        *legend(),
        *half(LABELS_END, cases, "cpu", "CPU time per message: less is better", micros),
        *half(LABELS_END + HALF + GAP, cases, "rate", "Messages per second: more is better", per_second),
    ]
    for number, case in enumerate(cases):
        parts.append(text(LABELS_END - 10, row_middle(number) + 4, case.name, anchor="end"))
    parts += [text(MARGIN, height - 16, note, fill=FAINT, size=11), "</svg>"]
    path.write_text("\n".join(parts) + "\n")


def legend():
    parts, x = [], WIDTH - MARGIN - 240
    for who in (OURS, THEIRS):
        parts += [rect(x, 24, 12, 12, COLOURS[who]), text(x + 18, 34, who)]
        x += 136
    return parts


def half(left, cases, what, title, unit):
    """Returns one half of the picture: a heading, the line at 1, and two bars for each case."""
    measured = [case for case in cases if what in case.figures]
    longest = max([1.0, *(case.ratio(what) for case in measured)])
    scale = (HALF - TEXT_ROOM) / longest
    bottom = HEAD + ROW * len(cases)
    one = left + scale
    parts = [
        text(left, HEAD - 18, title, weight="bold"),
        f'<path d="M{left} {HEAD - 4}V{bottom}" stroke="{LINE}"/>',
        f'<path d="M{one:.1f} {HEAD - 4}V{bottom}" stroke="{LINE}" stroke-dasharray="3 3"/>',
    ]
    for number, case in enumerate(cases):
        middle = row_middle(number)
        if what not in case.figures:
            parts.append(text(left + 8, middle + 4, "at a fixed rate", fill=FAINT, halo=True))
            continue
        for who, ratio, top in (
            (OURS, case.ratio(what), middle - BAR - BAR_GAP / 2),
            (THEIRS, 1.0, middle + BAR_GAP / 2),
        ):
            value = unit(case.median(what, who))
            label = f"{ratio:.2f} × ({value})" if who == OURS else value
            parts.append(rect(left, top, ratio * scale, BAR, COLOURS[who]))
            parts.append(text(left + ratio * scale + 6, top + BAR - 3, label, size=11, halo=True))
    return parts


def row_middle(number):
    return HEAD + ROW * number + ROW // 2


def micros(value):
    digits = 3 if value < 1 else 2 if value < 10 else 1
    return f"{value:.{digits}f} µs"


def per_second(value):
    return f"{value / 1e6:.2f} M/s" if value >= 1e6 else f"{value / 1e3:,.1f} k/s"


def rect(x, y, width, height, fill):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{fill}"/>'


def text(x, y, words, fill=INK, size=12, weight="normal", anchor="start", halo=False):
    # A halo keeps letters readable on a line.
    behind = f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"' if halo else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{fill}" font-size="{size}" font-weight="{weight}"{behind}>{escape(words)}</text>'
