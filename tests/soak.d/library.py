"""Components around real client libraries, old and new (tests/components/README.md), in the same traffic as the raw clients."""

import asyncio
import os
import shutil
from pathlib import Path

from findings import CLOSED

COMPONENTS = Path(__file__).resolve().parents[1] / "components"
TROUBLES = {"disconnected", "reconnecting", "closed", "error"}
CONNECTED = {"connected", "reconnected"}
# Libraries that do not connect again: the component is started anew, as its supervisor would do.
NEVER_RECONNECTS = {"nats-python"}
READY_SECS_MAX = 30
PER_SECOND = 5


def commands(peers):
    """Returns the command of each component."""
    python = peers / "python/bin/python"
    node = peers / "python/bin/node"
    node = node if node.exists() else shutil.which("node")
    return {
        "npm-08": [node, COMPONENTS / "component.js", peers / "node-0.8"],
        "npm-14": [node, COMPONENTS / "component.js", peers / "node-1.4"],
        "nats-python": [python, COMPONENTS / "component_nats_python.py"],
        "nats-py": [python, COMPONENTS / "component_nats_py.py"],
        "libnats": [peers / "bin/component-c"],
        "go": [peers / "bin/component-go"],
    }


class Library:
    """One component. It publishes a stream, and subscribes to those of all components."""

    def __init__(self, traffic, name, command, door, log):
        self.traffic, self.name, self.command, self.door, self.log = traffic, name, command, door, log
        self.stream = traffic.open("lib", name, door)
        self.receipts = traffic.receipts(f"{name} lib.*", lambda stream: stream.kind == "lib", [door.name])
        self.process = None
        self.is_ready = False
        # What the library says of its connection.
        self.is_connected = False
        self.ending = False
        self.due = 0.0
        self._answers = asyncio.Queue()

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            *map(str, self.command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self.log.open("ab"),
            env={**os.environ, "NODE_NO_WARNINGS": "1"},
        )
        asyncio.ensure_future(self._read(self.process))
        self.say(f"connect {self.door.url()}")
        await self._answer("connected")
        self.say(f"sub all {self.traffic.prefix}.lib.*")
        await self.flush()
        self.is_ready = True

    async def connect_again(self):
        """Waits until the library is connected again after a restart of its sidecar, or starts the component anew."""
        if self.name in NEVER_RECONNECTS:
            self.is_ready = False
            await self._end()
            await self.start()
        while not self.is_connected:
            await asyncio.sleep(0.01)
        await self.flush()

    async def _read(self, process):
        while line := await process.stdout.readline():
            self._take(line.decode().rstrip("\n"))
        if process is self.process and not self.ending and self.is_ready:
            self.traffic.findings.add("S10", f"{self.name} ended", CLOSED, sidecars=[self.door.name])

    def _take(self, line):
        event, _, rest = line.partition(" ")
        if event in TROUBLES | CONNECTED and event != "error":
            self.is_connected = event in CONNECTED
        if event == "msg":
            self.traffic.take(self.receipts, self.name, rest.split(" ")[2].encode(), self.door)
        elif event in TROUBLES and not self.ending:
            self.traffic.findings.add("S10", f"{self.name} reports: {line[:200]}", CLOSED, sidecars=[self.door.name])
        else:
            self._answers.put_nowait(event)

    async def _answer(self, wanted):
        while await asyncio.wait_for(self._answers.get(), READY_SECS_MAX) != wanted:
            pass

    def say(self, command):
        self.process.stdin.write(f"{command}\n".encode())

    async def flush(self):
        self.say("flush")
        await self._answer("flushed")

    def tick(self, passed_secs):
        if self.is_ready and self.traffic.is_open and self.process.returncode is None:
            self.due += PER_SECOND * passed_secs
            while self.due >= 1:
                self.due -= 1
                self.traffic.published += 1
                self.door.published += 1
                self.say(f"pub {self.stream.subject} {self.stream.next().decode()}")

    async def close(self):
        self.ending = True
        await self._end()

    async def _end(self):
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
