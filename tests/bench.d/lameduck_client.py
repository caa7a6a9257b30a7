"""A load like that of `load moves`, but with nats-py connected to the nodes directly: the same numbers of clients, commands and output. Each
subscriber has one subscription instead of two.

Arguments: the addresses of the nodes, separated by commas, and the messages per second of all publishers together.
"""

import asyncio
import json
import sys
import time

import nats

PUBLISHERS, SUBSCRIBERS, MEMBERS, REQUESTERS = 20, 6, 12, 6
REPLY_TIMEOUT = 3
REQUEST_EVERY = 0.02
TICK = 0.002
# Seconds without an arrival after which nothing more is expected.
QUIET = 3


class Received:
    """The numbers received from each publisher."""

    def __init__(self):
        self.highest, self.missing = [0] * PUBLISHERS, set()
        self.twice = self.disordered = 0
        self.heard, self.silence = time.monotonic(), 0

    def take(self, message):
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now
        publisher, number = map(int, message.data.split())
        highest = self.highest[publisher]
        if number > highest:
            self.missing.update((publisher, missing) for missing in range(highest + 1, number))
            self.highest[publisher] = number
        elif (publisher, number) in self.missing:
            self.missing.remove((publisher, number))
            self.disordered += 1
        else:
            self.twice += 1

    def lost(self, published):
        return len(self.missing) + sum(have - seen for have, seen in zip(published, self.highest))

    def mark(self):
        self.heard, self.silence = time.monotonic(), 0


class Run:
    def __init__(self, servers, rate):
        self.servers, self.rate = servers, rate
        self.published, self.plain, self.group = [0] * PUBLISHERS, [Received() for _ in range(SUBSCRIBERS)], Received()
        self.shares, self.group_disordered = [0] * MEMBERS, 0
        self.requests = self.failed = self.disconnects = 0
        self.stopped = False

    async def connect(self):
        # The library chooses a node at random.
        return await nats.connect(self.servers, disconnected_cb=self.disconnected, max_reconnect_attempts=-1, reconnect_time_wait=0.05)

    async def disconnected(self):
        self.disconnects += not self.stopped

    async def start(self):
        for received in self.plain:
            await self.subscribe("m.>", "", received.take)
        for member in range(MEMBERS):
            await self.subscribe("m.>", "crew", self.member(member))
        for _ in range(REQUESTERS):
            await self.answerer()
        self.tasks = [asyncio.create_task(self.request(number, await self.connect())) for number in range(REQUESTERS)]
        self.tasks.append(asyncio.create_task(self.publish([await self.connect() for _ in range(PUBLISHERS)])))

    async def subscribe(self, subject, group, take):
        async def callback(message):
            take(message)

        client = await self.connect()
        await client.subscribe(subject, group, cb=callback, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await client.flush()

    async def answerer(self):
        async def answer(message):
            await client.publish(message.reply, message.data)

        client = await self.connect()
        await client.subscribe("ask.>", "answerers", cb=answer)
        await client.flush()

    def member(self, number):
        highest = [0] * PUBLISHERS

        def take(message):
            publisher, of_message = map(int, message.data.split())
            self.group.take(message)
            self.shares[number] += 1
            self.group_disordered += of_message < highest[publisher]
            highest[publisher] = max(highest[publisher], of_message)

        return take

    async def publish(self, clients):
        started, sent = time.monotonic(), 0
        while not self.stopped:
            while sent < (time.monotonic() - started) * self.rate:
                number = sent % PUBLISHERS
                sent += 1
                self.published[number] += 1
                await clients[number].publish(f"m.{number}.x", b"%d %d" % (number, self.published[number]))
            await asyncio.sleep(TICK)
        for client in clients:
            await client.flush()

    async def request(self, number, client):
        while not self.stopped:
            self.requests += 1
            try:
                await client.request(f"ask.{number}", b"1", timeout=REPLY_TIMEOUT)
            except Exception:  # no answer, or no responder
                self.failed += 1
            await asyncio.sleep(REQUEST_EVERY)

    async def stop(self):
        self.stopped = True
        await asyncio.gather(*self.tasks)
        while time.monotonic() - max(one.heard for one in [*self.plain, self.group]) < QUIET:
            await asyncio.sleep(0.1)

    def result(self):
        return {
            "published": sum(self.published),
            "lost": sum(one.lost(self.published) for one in self.plain),
            "twice": sum(one.twice for one in self.plain),
            "disordered": sum(one.disordered for one in self.plain),
            "group_lost": self.group.lost(self.published),
            "group_twice": self.group.twice,
            "group_disordered": self.group_disordered,
            "group_shares": self.shares,
            "requests": self.requests,
            "failed_requests": self.failed,
            "disconnects": self.disconnects,
        }


def say(**fields):
    print(json.dumps(fields), flush=True)


async def main():
    run = Run([f"nats://{address}" for address in sys.argv[1].split(",")], int(sys.argv[2]))
    await run.start()
    say(event="ready")
    while True:
        command = (await asyncio.to_thread(sys.stdin.readline)).strip()
        if command == "mark":
            for received in run.plain:
                received.mark()
        elif command == "report":
            say(silences_ms=[received.silence * 1000 for received in run.plain])
        else:
            await run.stop()
            say(**run.result())
            return


asyncio.run(main())
