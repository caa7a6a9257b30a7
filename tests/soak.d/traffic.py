"""All components of a run, and what they say to each other."""

import asyncio
import time

from findings import MISSING
from library import Library, commands
from roles import (
    BIG_BYTES,
    HEADER,
    Answerer,
    Asker,
    Counter,
    Publisher,
    Subscriber,
    Visitor,
)
from streams import Book, Receipts, Stream

TICK_SECS = 0.02
# After the last publish: time for what is on its way.
SETTLE_SECS = 1.0
ANSWER_SECS_MAX = 15
# The largest number of messages after which a subscription with a maximum ends.
MAXIMUM_MAX = 60
# A message that takes longer is a sign that its way is broken.
LATE_SECS = 1.0


class Traffic:
    """The roles, the streams and the receipts. Findings about them go to `findings`."""

    def __init__(self, prefix, doors, findings, rate=1.0, secret=""):
        self.prefix, self.doors, self.findings, self.rate, self.secret = prefix, doors, findings, rate, secret
        self.sidecars = [door.name for door in doors]
        self.book = Book()
        self.all_receipts = {}
        self.roles, self.libraries, self.visitor = [], [], None
        # Whether publishers publish.
        self.is_open = False
        self.published = self.received = 0
        self.answer_secs_max = ANSWER_SECS_MAX
        self.maximum_max = MAXIMUM_MAX
        self._ticker = None

    # What roles need.

    def open(self, kind, owner, door, size=0):
        return self.book.open(Stream(kind, owner, self.prefix, door.name, size))

    def receipts(self, name, wants, sidecars, in_order=True):
        """Returns the receipts with this name; members of a queue group have the same."""
        if name not in self.all_receipts:
            self.all_receipts[name] = Receipts(name, self.book, self.findings, wants, in_order)
        self.all_receipts[name].sidecars.update(sidecars)
        return self.all_receipts[name]

    def take(self, receipts, member, payload, door):
        self.received += 1
        return receipts.take(member, payload, door.name)

    # Who is there.

    def raw_clients(self):
        """Adds the raw clients: the same roles at each door."""
        # One publisher does not want its own messages, one is verbose, and one is as old as clients get.
        kinds = [{"echo": False}, {"verbose": True}, {"protocol": 0}]
        for number, door in enumerate(self.doors):
            publisher = Publisher(self, f"pub{number}", door, **kinds[number % 3])
            for kind, rate in (("plain", 40), ("work", 20), ("tick", 40)):
                publisher.add(self.open(kind, publisher.name, door), rate)
            if number % 3 != 2:
                publisher.add(self.open("head", publisher.name, door), 10, HEADER)
            publisher.add(self.open("big", publisher.name, door, BIG_BYTES), 0.5)
            self.roles += [publisher, Asker(self, f"ask{number}", door), Answerer(self, f"answer{number}", door)]
            self._add_subscriber(number, door)
            self._add_echoless(number, door, publisher)
            counter = Counter(self, f"count{number}", door, f"{self.prefix}.tick.*", verbose=number % 3 == 1)
            self.roles.append(counter)
        self.visitor = Visitor(self, self.doors, self.roles[0])

    def _add_subscriber(self, number, door):
        subscriber = Subscriber(self, f"sub{number}", door, verbose=number % 3 == 2)
        for kind in ("plain", "head", "big"):
            subscriber.listen(f"{self.prefix}.{kind}.*", lambda stream, kind=kind: stream.kind == kind)
        own = f"{self.prefix}.plain.pub{number}"
        subscriber.listen(own, lambda stream: stream.subject == own)
        subscriber.listen(f"{self.prefix}.work.>", lambda stream: stream.kind == "work", queue="crew")
        of_one = f"pub{(number + 1) % len(self.doors)}"
        subscriber.listen(f"{self.prefix}.*.{of_one}", lambda stream: stream.subject.endswith(f".{of_one}"))
        self.roles.append(subscriber)

    def _add_echoless(self, number, door, publisher):
        """A publisher that does not want its own messages gets those of others."""
        if publisher.client.options.get("echo", True):
            return
        others = lambda stream: stream.kind == "plain" and stream.subject != f"{self.prefix}.plain.{publisher.name}"
        receipts = self.receipts(f"{publisher.name} plain.*", others, [door.name])
        take = lambda _subject, _reply, _header, payload: self.take(receipts, publisher.name, payload, door)
        publisher.client.subscribe(f"{self.prefix}.plain.*", take)

    def real_libraries(self, peers, log):
        """Adds components around client libraries, in turn at each door."""
        for number, (name, command) in enumerate(commands(peers).items()):
            self.libraries.append(Library(self, name, command, self.doors[number % len(self.doors)], log))

    def clients(self):
        return [role.client for role in self.roles]

    async def trouble(self):
        """Returns a receiver that does not get what is published now, or None."""
        late = time.monotonic() - LATE_SECS
        for receipts in self.all_receipts.values():
            for stream in filter(receipts.wants, self.book.streams.values()):
                following = receipts.highest(stream) + 1
                if following <= stream.count and stream.times[following] < late:
                    return f"{receipts.name} does not get {stream.name}"
        return None

    # From the first message to the last.

    async def start(self):
        """Connects all, and publishes when every subscription is known in the whole cluster."""
        await asyncio.gather(*(one.start() for one in self.roles + self.libraries))
        await asyncio.gather(*(client.flush() for client in self.clients()))
        self.is_open = True
        self._ticker = asyncio.ensure_future(self._tick())
        if self.visitor:
            await self.visitor.start()

    async def _tick(self):
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECS)
            now = time.monotonic()
            for one in self.roles + self.libraries:
                one.tick(now - last)
            last = now

    async def finish(self):
        """Stops publishing, waits for what is on its way, and adds what is missing to the findings. The clients stay."""
        self.is_open = False
        if self.visitor:
            await self.visitor.task
        if self._ticker.done():
            self._ticker.result()  # raises the error that ended it
        # No more PINGs: one that is not answered is noticed only if no other follows.
        self._ticker.cancel()
        await self._answered()
        for receipts in self.all_receipts.values():
            self._report_missing(receipts)
        if not self.book.streams or not self.received:
            self.findings.add("S12", "nobody received anything")

    async def _answered(self):
        """Two rounds of PING: the first for what publishers sent, the second for what subscribers are to get because of it."""
        for _ in range(2):
            flushed = await asyncio.gather(*(client.flush(self.answer_secs_max) for client in self.clients()))
            await asyncio.gather(*(library.flush() for library in self.libraries))
            await asyncio.sleep(SETTLE_SECS / 2)
        for client, done in zip(self.clients(), flushed):
            if not done:
                self.findings.add(
                    "S5", f"{client.name} got no PONG within {self.answer_secs_max} s at the end of the run"
                )
            elif client.expected and client.oldest_ping_age() > self.answer_secs_max:
                self.findings.add("S6", f"{client.name} still waits for {len(client.expected)} answers")

    def _report_missing(self, receipts):
        for stream in filter(receipts.wants, self.book.streams.values()):
            for first, last in runs(receipts.missing(stream)):
                text = f"{receipts.name} did not get {stream.name} {first}" + (f" to {last}" if last > first else "")
                on_the_way = (stream.sidecar, *receipts.sidecars)
                times = {"at": stream.times[first], "until": stream.times[last]}
                self.findings.add("S3", text, MISSING, sidecars=on_the_way, count=last - first + 1, **times)

    async def close(self):
        if self._ticker:
            self._ticker.cancel()
        await asyncio.gather(*(client.close() for client in self.clients()))
        await asyncio.gather(*(library.close() for library in self.libraries))


def runs(numbers):
    """Returns (first, last) of each run of consecutive numbers."""
    found = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [tuple(run) for run in found]
