"""Charts over the time of a run, as plain SVG: lines or bars, with a band for the window of each fault."""

from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1080, 190
LEFT, RIGHT, TOP, BOTTOM = 124, 12, 30, 24
POINTS_MAX = 500
COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a"]


class Chart:
    """One chart. Times are in seconds since the start of the run."""

    def __init__(self, title, unit, end_secs, windows, start):
        self.title, self.unit, self.end_secs = title, unit, max(end_secs, 1)
        self.windows = [(window.start - start, window.end - start, window.fault) for window in windows]
        self.series = []

    def line(self, name, points):
        self.series.append((name, thinned(points), "line"))
        return self

    def bars(self, name, points):
        """Adds bars of one second."""
        self.series.append((name, points, "bars"))
        return self

    def svg(self):
        values = [value for _, points, _ in self.series for _, value in points if value is not None]
        top = nice(max([*values, 1e-9]))
        body = [f'<text class="title" x="{LEFT}" y="16">{escape(self.title)}</text>', *self._legend()]
        body += self._bands() + self._axes(top)
        for number, (_, points, style) in enumerate(self.series):
            colour = COLOURS[number % len(COLOURS)]
            draw = self._line if style == "line" else self._bars
            body.append(draw(points, top, colour))
        label = escape(f"{self.title} over time", {'"': "&quot;"})
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(body)}</svg>'

    def _x(self, secs):
        return LEFT + (WIDTH - LEFT - RIGHT) * secs / self.end_secs

    def _y(self, value, top):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    def _bands(self):
        return [
            f'<rect class="band" x="{self._x(start):.1f}" y="{TOP}" width="{max(1, self._x(end) - self._x(start)):.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>{escape(fault)}</title></rect>'
            for start, end, fault in self.windows
        ]

    def _axes(self, top):
        parts = []
        for share in (0, 0.5, 1):
            y = self._y(share * top, top)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            text = f"{share * top:g}{self.unit if share == 1 else ''}"
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        step = nice(self.end_secs / 8)
        for number in range(int(self.end_secs / step) + 1):
            x, text = self._x(number * step), f"{number * step:g} s"
            parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text}</text>')
        return parts

    def _legend(self):
        parts, x = [], WIDTH - RIGHT
        for number, (name, _, _) in reversed(list(enumerate(self.series))):
            x -= 7 * len(name) + 26
            parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{COLOURS[number % len(COLOURS)]}"/>')
            parts.append(f'<text class="tick" x="{x + 14}" y="17">{escape(name)}</text>')
        return parts

    def _line(self, points, top, colour):
        """Draws a line, with a gap where the value is None."""
        path, pen_up = [], True
        for at, value in points:
            if value is not None:
                path.append(f"{'M' if pen_up else 'L'}{self._x(at):.1f} {self._y(value, top):.1f}")
            pen_up = value is None
        return f'<path class="line" stroke="{colour}" d="{"".join(path)}"/>'

    def _bars(self, points, top, colour):
        width = max(1.0, (WIDTH - LEFT - RIGHT) / self.end_secs)
        return "".join(
            f'<rect x="{self._x(at):.1f}" y="{self._y(value, top):.1f}" width="{width:.1f}" '
            f'height="{HEIGHT - BOTTOM - self._y(value, top):.1f}" fill="{colour}"/>'
            for at, value in points
        )


def timeline(windows, end_secs, start):
    """Returns a picture with one row for each kind of fault, and a bar for each time that it happened."""
    rows = list(dict.fromkeys(window.fault for window in windows))
    row, width = 16, WIDTH - LEFT - RIGHT
    parts = []
    for number, fault in enumerate(rows):
        y = number * row
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(fault)}</text>')
        parts.append(f'<path class="grid" d="M{LEFT} {y + row - 0.5}H{WIDTH - RIGHT}"/>')
        for window in windows:
            if window.fault == fault:
                x, wide = (
                    (secs * width) / max(end_secs, 1) for secs in (window.start - start, window.end - window.start)
                )
                label = escape(f"{window.start - start:.1f} s: {window.detail}")
                shape = f'x="{LEFT + x:.1f}" y="{y + 3}" width="{max(2, wide):.1f}" height="{row - 6}"'
                parts.append(f'<rect class="fault" {shape}><title>{label}</title></rect>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {row * len(rows)}" role="img" aria-label="Faults over time">{"".join(parts)}</svg>'
    )


def nice(value):
    """Returns the smallest 1, 2 or 5 times a power of ten that is not below the value."""
    power = 10.0 ** (len(str(int(value))) - 1) if value >= 1 else 1e-3
    while True:
        for factor in (1, 2, 5):
            if factor * power >= value:
                return factor * power
        power *= 10


def thinned(points):
    """Returns at most POINTS_MAX points, each the largest of its neighbours."""
    size = max(1, -(-len(points) // POINTS_MAX))
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return [max(group, key=lambda point: -1 if point[1] is None else point[1]) for group in groups]
