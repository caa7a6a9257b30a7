"""A raw client: connects, sends commands, and checks each answer of the server against them.

It reconnects only when its connection was closed, as a client library does. The behaviour of each role is in roles.py.
"""

import asyncio
import json
import time
from collections import deque

from findings import CLOSED
from frames import Frames, NotAFrame

RECONNECT_SECS = 0.05
# A component may have to wait for a node: from the loss of the last one until another one serves.
READY_SECS_MAX = 20
INFO_BYTES_MAX = 512
# A server sends one PING soon after CONNECT, to measure the round trip.
EARLY_PINGS = 1


class Client(asyncio.Protocol):
    """One component with its subscriptions, over all its connections."""

    def __init__(self, name, door, findings, secret="", **options):
        # `door` is the listener to which it connects. `secret`: text that only the cluster's INFO has.
        self.name, self.door, self.findings, self.secret = name, door, findings, secret
        self.options = {"verbose": False, "pedantic": False, "lang": "soak", "version": "1", "name": name}
        self.options |= {**options, **door.login}
        self.verbose = self.options["verbose"]
        self.subscriptions = {}
        self.transport = None
        # Whether it closes the connection itself: to connect again, or for ever.
        self.leaving = self.ending = False
        self.slowest_pong = 0.0
        self.connections = 0
        # Called before the subscriptions are made again on a new connection.
        self.on_connection = lambda: None
        self.task = None
        self._ready = asyncio.Event()
        self._next_sid = 0

    # The connection.

    async def start(self):
        """Connects, and returns when the server has answered the first PING."""
        self.task = asyncio.ensure_future(self._stay_connected())
        await self.connect_again()

    async def connect_again(self):
        """Waits until the client is connected again after a restart of its sidecar."""
        await asyncio.wait_for(self._ready.wait(), READY_SECS_MAX)

    @property
    def is_ready(self):
        return self._ready.is_set()

    async def _stay_connected(self):
        loop = asyncio.get_running_loop()
        while not self.ending:
            self._lost = asyncio.Event()
            try:
                await loop.create_connection(lambda: self, *self.door.address)
                await self._lost.wait()
            except OSError:
                await asyncio.sleep(RECONNECT_SECS)

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 24)
        self.frames = Frames()
        self.expected = deque()
        self.infos = 0
        self.pings = 0
        self.connections += 1

    def connection_lost(self, error):
        self._lost.set()
        self._ready.clear()
        if not self.ending and not self.leaving:
            text = f"the connection of {self.name} was closed ({error or 'end of stream'})"
            self.findings.add("S10", text, CLOSED, sidecars=[self.door.name])

    async def reconnect(self):
        """Closes the connection and connects again, like a component that is restarted."""
        await self.flush()
        self.leaving = True
        # Nothing is published any more: a closing socket would drop it.
        self._ready.clear()
        self.transport.close()
        await self._lost.wait()
        self.leaving = False
        await self.connect_again()

    async def close(self):
        self.ending = True
        if self.transport:
            self.transport.close()
        if self.task:
            self.task.cancel()
            await asyncio.wait([self.task])

    # Commands.

    def subscribe(self, subject, handler, queue=""):
        """Subscribes, and returns the sid. `handler` is called with subject, reply subject, header and payload."""
        self._next_sid += 1
        sid = self._next_sid
        self.subscriptions[sid] = (subject, queue, handler)
        if self.transport and self.infos:
            self._send_sub(sid)
        return sid

    def _send_sub(self, sid):
        subject, queue, _ = self.subscriptions[sid]
        self.command(f"SUB {subject} {queue + ' ' if queue else ''}{sid}\r\n".encode())

    def unsubscribe_after(self, sid, most):
        self.command(f"UNSUB {sid} {most}\r\n".encode())

    def forget(self, sid):
        """Takes note that a subscription has ended. One message more breaks a promise."""
        del self.subscriptions[sid]

    def publish(self, subject, payload, reply="", header=b""):
        self.door.published += 1
        reply = reply and reply + " "
        if header:
            head = f"HPUB {subject} {reply}{len(header)} {len(header) + len(payload)}\r\n".encode()
        else:
            head = f"PUB {subject} {reply}{len(payload)}\r\n".encode()
        self.command(head + header + payload + b"\r\n")

    def command(self, data):
        if self.verbose:
            self.expected.append(("+OK", 0.0, None))
        self._write(data)

    def ping(self, then=None):
        """Sends a PING. `then` is called with its PONG."""
        self.expected.append(("PONG", time.monotonic(), then))
        self._write(b"PING\r\n")

    async def flush(self, seconds_max=READY_SECS_MAX):
        """Sends a PING, and returns whether its PONG came in time.

        Then the server has processed all commands before the PING, and what it sent before the PONG has been received.
        """
        done = asyncio.Event()
        if not self.is_ready:
            return False
        self.ping(done.set)
        try:
            await asyncio.wait_for(done.wait(), seconds_max)
        except asyncio.TimeoutError:
            return False
        return True

    def oldest_ping_age(self):
        """Returns the age of the oldest PING that is not answered yet, in seconds."""
        asked = [at for verb, at, _ in self.expected if verb == "PONG"] if self.is_ready else []
        return time.monotonic() - asked[0] if asked else 0.0

    def _write(self, data):
        self.transport.write(data)

    # Answers.

    def data_received(self, data):
        try:
            for frame in self.frames.feed(data):
                self._take(frame)
        except NotAFrame as error:
            self.findings.add("S1", f"{self.name}: {error}")
            self.transport.abort()

    def _take(self, frame):
        verb = frame[0]
        if verb == "MSG":
            self._take_message(*frame[1:])
        elif verb in ("PONG", "+OK"):
            self._take_answer(verb)
        elif verb == "PING":
            self._take_ping()
        elif verb == "INFO":
            self._take_info(*frame[1:])
        else:
            promise = "S11" if "uthoriz" in frame[1] else "S9"
            self.findings.add(promise, f"{self.name} did nothing wrong and got -ERR {frame[1]}")

    def _take_message(self, subject, sid, reply, header_bytes, payload):
        if subscription := self.subscriptions.get(sid):
            header, payload = payload[:header_bytes], payload[header_bytes:]
            subscription[2](subject.decode(), reply, header, payload)
        else:
            self.findings.add(
                "S4", f"{self.name} got a message on {subject.decode()} for sid {sid}, which it does not have"
            )

    def _take_answer(self, verb):
        promise = "S5" if verb == "PONG" else "S6"
        if not self.expected:
            self.findings.add(promise, f"{self.name} got {verb}, but all its commands were answered before")
            return
        wanted, asked_at, then = self.expected.popleft()
        if wanted != verb:
            # Either the wanted answer is missing, or this one is one too many.
            for promise in ("S5", "S6"):
                self.findings.add(promise, f"{self.name} got {verb}, but the next answer must be {wanted}")
            return
        if verb == "PONG":
            self.slowest_pong = max(self.slowest_pong, time.monotonic() - asked_at)
            if then:
                then()

    def _take_ping(self):
        self.pings += 1
        # The sidecar pings a component that is silent for long. These components never are, so this is the node's PING.
        if self.pings > EARLY_PINGS:
            self.findings.add("S8", f"{self.name} got PING {self.pings} on one connection, though it is never silent")
        self._write(b"PONG\r\n")

    def _take_info(self, text, line_bytes):
        self.infos += 1
        self._check_info(text, line_bytes)
        if self.infos == 1:
            if self.connections > 1:
                self.on_connection()
            self.command(b"CONNECT " + json.dumps(self.options).encode() + b"\r\n")
            for sid in self.subscriptions:
                self._send_sub(sid)
            self.ping(self._ready.set)
        elif not self.options.get("protocol"):
            self.findings.add("S7", f"{self.name} got a second INFO, which clients of protocol 0 do not expect")

    def _check_info(self, text, line_bytes):
        try:
            info = json.loads(text)
        except ValueError:
            self.findings.add("S1", f"{self.name} got an INFO that is not JSON: {text[:120]!r}")
            return
        if line_bytes >= INFO_BYTES_MAX:
            self.findings.add("S7", f"{self.name} got an INFO of {line_bytes} bytes, and old clients hang on it")
        if info.get("connect_urls") or (self.secret and self.secret.encode() in text):
            self.findings.add("S7", f"{self.name} got an INFO that names the cluster: {text.decode()[:300]}")
        if [info.get("host"), info.get("port")] != list(self.door.shown):
            self.findings.add("S7", f"{self.name} got an INFO with the address {info.get('host')}:{info.get('port')}")


class Door:
    """A listener for components: that of a sidecar, or of the spoiler before it."""

    def __init__(self, name, address, login, shown=None):
        # `login` are the keys of CONNECT with the credentials, `shown` is the address that INFO must have.
        self.name, self.address, self.login, self.shown = name, address, login, shown or address
        self.published = 0

    def url(self):
        user = f"{self.login['user']}:{self.login['pass']}@" if self.login else ""
        return f"nats://{user}{self.address[0]}:{self.address[1]}"
