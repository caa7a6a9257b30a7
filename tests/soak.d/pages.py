"""HTTP pages of the programs, read without blocking the harness."""

import asyncio
import json
import re

READ_SECS_MAX = 2
SERIES = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")


async def get(host, port, path):
    """Returns the text of a page, or None if the program does not serve it (now)."""
    try:
        return await asyncio.wait_for(_get(host, port, path), READ_SECS_MAX)
    except (OSError, TimeoutError, asyncio.TimeoutError, asyncio.IncompleteReadError):
        return None


async def _get(host, port, path):
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            body = _unchunked(body)
        return body.decode() if head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")) else None
    finally:
        writer.close()


def _unchunked(body):
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


async def get_json(host, port, path):
    text = await get(host, port, path)
    return json.loads(text) if text else None


async def metrics(host, port):
    """Returns the value of each series of /metrics, by its name and the text of its labels."""
    found = {}
    for line in (await get(host, port, "/metrics") or "").splitlines():
        if series := SERIES.match(line):
            found[series[1], series[2] or ""] = float(series[3])
    return found


def total(values, name, label=""):
    """Returns the sum of all series with this name whose labels contain `label`."""
    return sum(value for (series, labels), value in values.items() if series == name and label in labels)
