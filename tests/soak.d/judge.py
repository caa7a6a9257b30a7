"""The verdict: which promises were kept. A finding breaks its promise, unless the window of a fault explains it."""

import asyncio
import json
import time
from bisect import bisect_left, bisect_right

import logs
import pages
from roles import Counter

PROMISES = {
    "S1": "complete frames only, with the bytes that were published",
    "S3": "no message twice; one is missing only in the window of a fault that can lose it",
    "S4": "subscriptions survive; UNSUB with a maximum is exact over every move",
    "S5": "one PONG for each PING, in order, after all that was sent before it",
    "S6": "one +OK for each command",
    "S7": "INFO names the sidecar and never the cluster, in less than 512 bytes",
    "S8": "PINGs of nodes do not reach the component",
    "S9": "no -ERR for a component that did nothing wrong",
    "S10": "no connection of a component is closed, except by a restart of its sidecar; an outage of all nodes is waited out",
    "S11": "credentials of the component, or of the sidecar, reach each node",
    "S12": "the order of each publisher is kept",
    "S13": "a planned move loses nothing, and delivers nothing twice",
    "echo": "with echo off, a component does not get its own messages",
    "requests": "requests are answered, and 503 comes exactly if nobody can answer",
    "flush": "after its PONG a new subscription gets what is published on any node",
    "memory": "memory stops growing after the warm-up",
    "descriptors": "descriptors do not leak",
    "logs": "no panic, and no ERROR except those that a fault causes",
    "metrics": "counters and gauges agree with what the components did",
    "programs": "no program ends by itself, and everything recovers after a fault",
}
# Share of the messages published while no node runs that may be missing. They are sent when the subscribers are back too, as far as a
# sidecar can know. See S10 in proxy/README.md.
HELD_LOSS_SHARE_MAX = 0.05
# Time for the sidecars to see that components have closed.
GONE_SECS_MAX = 5
# Errors in logs that faults cause: the disk is full.
ALLOWED_ERRORS = ("No space left on device",)


def explain(findings, windows):
    """Marks each finding that a window covers."""
    for finding in findings.list:
        for window in windows:
            if window.covers(finding):
                finding.explained_by = window
                window.explained[finding.kind] = window.explained.get(finding.kind, 0) + finding.count
                break


def something_happened(findings, traffic):
    """Checks that each receiver got messages: the checks of one that got none would prove nothing."""
    for receipts in traffic.all_receipts.values():
        if not receipts.total:
            findings.add("programs", f"{receipts.name} got nothing in the whole run")
    for role in traffic.roles:
        if isinstance(role, Counter) and not role.completed:
            findings.add("programs", f"no subscription of {role.name} reached its maximum in the whole run")


def outages(findings, windows, traffic):
    """Checks that few of the messages are lost that were published while no node ran. The window alone would explain any loss."""
    for window in filter(lambda one: one.held, windows):
        wanted = lost = 0
        for stream in traffic.book.streams.values():
            first, after = bisect_left(stream.times, window.held[0]), bisect_right(stream.times, window.held[1])
            for receipts in traffic.all_receipts.values():
                if receipts.wants(stream) and first < after:
                    wanted += after - first
                    lost += len(receipts.missing(stream, first, after - 1))
        if lost > HELD_LOSS_SHARE_MAX * wanted:
            text = f"the outage of {window.detail} lost {lost} of {wanted} messages that were published while no node ran"
            findings.add("S10", text)


def programs(findings, system):
    """Checks that every program still runs, and what it wrote."""
    for program in system.programs():
        if program.should_run and not program.is_running():
            findings.add("programs", f"{program.name} ended by itself with {program.exit_code()}")
        logs.judge(program.name, logs.lines(program.logs), findings, ALLOWED_ERRORS)


async def metrics_while_connected(findings, system, traffic, before):
    """Checks what each sidecar counts against what its components did. `before` are the metrics before the traffic."""
    for sidecar, earlier in zip(system.sidecars, before):
        values = await sidecar.metrics()
        connected = sum(one.door is sidecar.door for one in traffic.roles + traffic.libraries)
        _equal(findings, sidecar, values, "standin_sessions", connected)
        _equal(findings, sidecar, values, "standin_sessions_without_node", 0)
        opened, closed = (pages.total(values, f"standin_sessions{end}") for end in ("_total", "_closed_total"))
        if opened - closed != connected:
            text = f"{sidecar.name} counts {opened:.0f} sessions opened and {closed:.0f} closed, with {connected} connected"
            findings.add("metrics", text)
        messages = [pages.total(some, "standin_messages_total", "to_node") for some in (earlier, values)]
        if sidecar.lives == 1 and messages[1] - messages[0] != sidecar.door.published:
            passed, published = messages[1] - messages[0], sidecar.door.published
            findings.add("metrics", f"{sidecar.name} passed {passed:.0f} messages to nodes, of {published} published")
        for name in (
            "standin_sessions_failed_total",
            "standin_client_errors_total",
            "standin_registry_records_skipped_total",
        ):
            now, then = pages.total(values, name), pages.total(earlier, name)
            if now > (then if sidecar.lives == 1 else 0):
                findings.add("metrics", f"{name} of {sidecar.name} went from {then:.0f} to {now:.0f}")


async def gone(findings, system):
    """Checks that nothing is left when all components have gone, and that the cache file can be read."""
    deadline = time.monotonic() + GONE_SECS_MAX
    for sidecar in system.sidecars:
        while pages.total(values := await sidecar.metrics(), "standin_sessions") and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for name in ("standin_sessions", "standin_half_open", "standin_buffered_bytes"):
            _equal(findings, sidecar, values, name, 0)
        try:
            json.loads(sidecar.cache_file.read_text())
        except (OSError, ValueError) as error:
            findings.add("programs", f"the cache file of {sidecar.name} cannot be read at the end: {error}")


def _equal(findings, sidecar, values, name, wanted):
    found = pages.total(values, name)
    if not values or found != wanted:
        findings.add("metrics", f"{name} of {sidecar.name} is {found:.0f}, but must be {wanted}")
