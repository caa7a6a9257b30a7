"""The Python component around the current nats-py."""

import asyncio
import ssl
import sys
import time

import nats

subscriptions = {}
tasks = set()
client = None


def say(*words):
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


def reporter(event):
    async def report():
        say(event)

    return report


async def report_error(error):
    say("error", type(error).__name__, error)


def credentials(values):
    options = {}
    if "ca" in values:
        options["tls"] = ssl.create_default_context(cafile=values["ca"])
    if "cert" in values:
        options["tls"].load_cert_chain(values["cert"], values["key"])
    if "seed" in values:
        options["nkeys_seed"] = values["seed"]
    if "creds" in values:
        options["user_credentials"] = values["creds"]
    return options


async def connect(url, *words):
    global client
    client = await nats.connect(
        url,
        **credentials(dict(word.split("=", 1) for word in words)),
        error_cb=report_error,
        disconnected_cb=reporter("disconnected"),
        reconnected_cb=reporter("reconnected"),
        closed_cb=reporter("closed"),
    )
    say("connected")


async def sub(name, subject, group=""):
    async def callback(message):
        say("msg", name, message.subject, message.data.decode())

    subscriptions[name] = await client.subscribe(subject, queue=group, cb=callback)


async def unsub(name, most="0"):
    await subscriptions[name].unsubscribe(int(most))


async def answer(subject, prefix):
    async def callback(message):
        await message.respond(prefix.encode() + message.data)

    await client.subscribe(subject, cb=callback)


async def pub(subject, payload):
    await client.publish(subject, payload.encode())


async def request(subject, payload):
    say("reply", (await client.request(subject, payload.encode(), timeout=10)).data.decode())


async def flush():
    await client.flush()
    say("flushed")


async def burst(subject, prefix, count, rate):
    start, sent = time.monotonic(), 0
    while sent < int(count):
        due = min(int(count), int((time.monotonic() - start) * float(rate)) + 1)
        while sent < due:
            sent += 1
            await client.publish(subject, f"{prefix}{sent}".encode())
        await asyncio.sleep(0.002)
    say("burst-done", count)


async def close():
    await client.close()


async def carry_out(command, words):
    try:
        await globals()[command](*words)
    except Exception as error:
        say("error", type(error).__name__, error)


async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command, *words = line.decode().split()
        if command in ("burst", "request"):  # these take time; the others run one after another
            task = asyncio.ensure_future(carry_out(command, words))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            await carry_out(command, words)


asyncio.run(main())
