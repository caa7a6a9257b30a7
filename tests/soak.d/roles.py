"""What the raw clients do: publish, subscribe, ask, answer, count, come and go. Each role checks what only it can know."""

import asyncio
import random
import time

from client import Client
from findings import LATE, MISSING

HEADER = b"NATS/1.0\r\nKind: soak\r\n\r\n"
NO_RESPONDERS = b"NATS/1.0 503\r\n"
PING_EVERY_SECS = 0.2
NEW = {"protocol": 1, "headers": True, "no_responders": True, "echo": True}
BIG_BYTES = 96 * 1024
# A subscription with a maximum is stuck if, since its last message, a plain one to the same subject has got more than this many
# messages, over more than this time.
BEHIND_MAX, BEHIND_SECS_MAX = 40, 3.0
ARRIVES_SECS_MAX = 2.0


class Role:
    """One client and its ticks."""

    def __init__(self, traffic, name, door, **options):
        self.traffic, self.name, self.door = traffic, name, door
        options = {**NEW, **options}
        if options["protocol"] == 0:
            options = {"verbose": options.get("verbose", False)}
        self.client = Client(name, door, traffic.findings, traffic.secret, **options)
        self._pinged_at = 0.0

    async def start(self):
        await self.client.start()

    def tick(self, passed_secs):
        """Does what is due after this time."""
        if time.monotonic() - self._pinged_at >= PING_EVERY_SECS:
            self._pinged_at = time.monotonic()
            self.ping()

    def ping(self):
        self.client.ping()


class Publisher(Role):
    """Publishes streams, and gets one of them itself: what it published before a PING comes before the PONG."""

    def __init__(self, traffic, name, door, **options):
        super().__init__(traffic, name, door, **options)
        self.due = {}
        self.streams = []
        self.loop_floor = 0
        if self.client.options.get("echo", True):
            self.loop = traffic.open("loop", name, door)
            self.receipts = traffic.receipts(f"loop of {name}", lambda stream: stream is self.loop, [door.name])
            self.client.subscribe(self.loop.subject, self._take_loop)
            self.add(self.loop, 20)

    def add(self, stream, per_second, header=b""):
        """Publishes a stream from now on, this many messages per second (times the rate of the traffic)."""
        self.streams.append((stream, per_second * self.traffic.rate, header))
        self.due[stream.name] = random.random()

    def tick(self, passed_secs):
        if self.client.is_ready and self.traffic.is_open:
            for stream, per_second, header in self.streams:
                self.due[stream.name] += per_second * passed_secs
                while self.due[stream.name] >= 1:
                    self.due[stream.name] -= 1
                    self.send(stream, header)
        if self.client.is_ready:
            super().tick(passed_secs)

    def send(self, stream, header):
        self.traffic.published += 1
        self.client.publish(stream.subject, stream.next(), header=header)

    def ping(self):
        sent = self.loop.count if self.client.options.get("echo", True) else 0
        self.client.ping(lambda: setattr(self, "loop_floor", sent))

    def _take_loop(self, _subject, _reply, _header, payload):
        if found := self.traffic.take(self.receipts, self.name, payload, self.door):
            stream, number = found
            if number <= self.loop_floor:
                text = f"{self.name} got {stream.name} {number} only after the PONG to a later PING"
                self.traffic.findings.add("S5", text, LATE, at=stream.times[number])


class Subscriber(Role):
    """Subscribes to the streams of all publishers."""

    def listen(self, subject, wants, queue=""):
        """Subscribes. Members of a queue group share their receipts."""
        receipts = self.traffic.receipts(
            f"group {queue}" if queue else f"{self.name} {subject}", wants, [self.door.name]
        )
        member = f"{self.name} {subject}"

        def take(_subject, _reply, header, payload):
            found = self.traffic.take(receipts, member, payload, self.door)
            if found and header != (HEADER if found[0].kind == "head" else b""):
                self.traffic.findings.add("S1", f"{member} got {found[0].name} {found[1]} with the header {header!r}")

        self.client.subscribe(subject, take, queue)

    def tick(self, passed_secs):
        if self.client.is_ready:
            super().tick(passed_secs)


class Asker(Publisher):
    """Sends requests, some to nobody. A request to nobody is answered by the node (503)."""

    def __init__(self, traffic, name, door):
        super().__init__(traffic, name, door)
        self.inbox = f"{traffic.prefix}._INBOX.{name}"
        self.ask = traffic.open("ask", name, door)
        self.nobody = traffic.open("nobody", name, door)
        # The answer can come from a component of any sidecar.
        answers = lambda stream: stream is self.ask
        self.replies = traffic.receipts(f"replies to {name}", answers, traffic.sidecars, in_order=False)
        self.refusals = traffic.receipts(f"503 to {name}", lambda stream: stream is self.nobody, [door.name])
        self.client.subscribe(f"{self.inbox}.*.*", self._take_reply)
        self.add(self.ask, 10)
        self.add(self.nobody, 3)

    def send(self, stream, header):
        if stream is self.loop:
            super().send(stream, header)
            return
        payload = stream.next()
        self.traffic.published += 1
        kind = "ask" if stream is self.ask else "nobody"
        self.client.publish(stream.subject, payload, reply=f"{self.inbox}.{kind}.{stream.count}")

    def _take_reply(self, subject, _reply, header, payload):
        kind, number = subject.split(".")[-2:]
        if kind == "ask" and not header.startswith(NO_RESPONDERS):
            self.traffic.take(self.replies, self.name, payload, self.door)
        elif kind == "nobody" and header.startswith(NO_RESPONDERS):
            self.traffic.take(self.refusals, self.name, self.nobody.payload(int(number)), self.door)
        elif kind == "ask":
            # The responders' interest is there, except while a node is lost.
            text = f"{self.name} got 503 to a request, though there are responders"
            # A broken node may name a request that was never sent.
            at = self.ask.times[min(int(number), self.ask.count)]
            self.traffic.findings.add("requests", text, MISSING, at=at, sidecars=self.traffic.sidecars)
        else:
            self.traffic.findings.add("requests", f"{self.name} got an answer to a request to nobody: {payload[:80]!r}")


class Answerer(Subscriber):
    """Answers requests, as a member of a queue group, with their payload."""

    def __init__(self, traffic, name, door):
        super().__init__(traffic, name, door)
        self.client.subscribe(f"{traffic.prefix}.ask.*", self._answer, "answerers")

    def _answer(self, _subject, reply, _header, payload):
        if reply and self.client.is_ready:
            self.client.publish(reply.decode(), payload)


class Counter(Subscriber):
    """Makes one subscription with a maximum after the other, and counts their messages exactly."""

    def __init__(self, traffic, name, door, subject, **options):
        super().__init__(traffic, name, door, **options)
        self.subject = subject
        self.completed = 0
        self.sid = None
        self.client.on_connection = self._give_up
        self.client.subscribe(subject, self._take_plain)

    async def start(self):
        await super().start()
        self._begin()

    def _begin(self):
        self.most, self.count, self.is_known = random.randint(1, self.traffic.maximum_max), 0, False
        self._count_plain_again()
        self.sid = sid = self.client.subscribe(self.subject, self._take_counted)
        self.client.unsubscribe_after(sid, self.most)
        self.client.ping(lambda: self._know(sid))

    def _know(self, sid):
        """Called with the PONG after UNSUB: the node has the maximum. More messages than that can come only before this PONG."""
        if sid == self.sid:
            self.is_known = True
            # What the plain subscription got before says nothing: this client may read late what came before the PONG.
            self._count_plain_again()
            self._end_at_maximum()

    def _give_up(self):
        """Ends the present subscription, because its connection has ended."""
        if self.sid:
            self.client.forget(self.sid)
            self.sid = None

    def _count_plain_again(self):
        # What the plain subscription to the same subject has got since the last message to the one with the maximum.
        self.plain, self.plain_since = 0, time.monotonic()

    def _take_plain(self, *_):
        self.plain += 1
        stuck = self.plain > BEHIND_MAX and time.monotonic() - self.plain_since > BEHIND_SECS_MAX
        if self.sid and self.is_known and stuck:
            text = f"{self.name}: a subscription with the maximum {self.most} ended after {self.count} messages"
            self.traffic.findings.add("S4", text)
            self._give_up()

    def _take_counted(self, *_):
        self.count += 1
        self._count_plain_again()
        self._end_at_maximum()

    def _end_at_maximum(self):
        if self.is_known and self.count >= self.most:
            self.completed += 1
            # From now on the client reports each message to this subscription.
            self.client.forget(self.sid)
            self._begin()

    def tick(self, passed_secs):
        if self.client.is_ready and self.sid is None:
            self._begin()
        super().tick(passed_secs)


class Visitor:
    """Connects anew all the time, subscribes, and after its PONG must get what another component publishes on any node."""

    EVERY_SECS = 0.4

    def __init__(self, traffic, doors, publisher):
        self.traffic, self.doors, self.publisher = traffic, doors, publisher
        self.visits = 0
        self.task = None

    async def start(self):
        self.task = asyncio.ensure_future(self._visit_again_and_again())

    async def _visit_again_and_again(self):
        while self.traffic.is_open:
            self.visits += 1
            await self._visit(self.doors[self.visits % len(self.doors)])
            await asyncio.sleep(self.EVERY_SECS)

    async def _visit(self, door):
        client = Client(f"visitor {self.visits}", door, self.traffic.findings, self.traffic.secret, **NEW)
        got = asyncio.Event()
        subject = f"{self.traffic.prefix}.visit.number.{self.visits}"
        client.subscribe(subject, lambda *_: got.set())
        sidecars = [door.name, self.publisher.door.name]
        begun = time.monotonic()
        try:
            await client.start()
            if self.publisher.client.is_ready:
                begun = time.monotonic()
                self.publisher.client.publish(subject, b"welcome")
                await asyncio.wait_for(got.wait(), ARRIVES_SECS_MAX)
        except asyncio.TimeoutError:
            text = f"{client.name} of {door.name} subscribed, got its PONG, and missed the publish after it"
            if not client.is_ready:
                text = f"{client.name} of {door.name} connected, and was not served within {time.monotonic() - begun:.1f} s"
            self.traffic.findings.add("flush", text, MISSING, at=begun, sidecars=sidecars)
        finally:
            await client.close()
