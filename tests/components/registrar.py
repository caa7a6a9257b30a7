"""One ZooKeeper session that a test holds: what a node's own registration, or an operator, does.

Reads one JSON command a line, answers one JSON line each. Ending this process abruptly leaves its ephemeral nodes to
the session timeout, as a machine that lost power does; the command close (or the end of input) ends the session.
"""

import json
import logging
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

logging.basicConfig(level=logging.CRITICAL)
hosts, timeout_secs = sys.argv[1], float(sys.argv[2])
# Left to itself the library backs off until a server that is back finds the session expired.
retry = {"max_tries": -1, "max_delay": 0.5}
client = KazooClient(hosts=hosts, timeout=timeout_secs, connection_retry=retry)


def put(path, data, ephemeral):
    """Creates the node or sets its data; parents are made."""
    raw = data.encode()
    if client.exists(path):
        client.set(path, raw)
    else:
        client.create(path, raw, ephemeral=ephemeral, makepath=True)


def delete(path):
    try:
        client.delete(path, recursive=True)
    except NoNodeError:
        pass


def wipe():
    """Deletes everything that is not ZooKeeper's own."""
    for child in client.get_children("/"):
        if child != "zookeeper":
            delete("/" + child)


def children(path):
    try:
        return sorted(client.get_children(path))
    except NoNodeError:
        return []


def get(path):
    try:
        return client.get(path)[0].decode()
    except NoNodeError:
        return None


commands = {"put": put, "delete": delete, "wipe": wipe, "children": children, "get": get}
client.start(timeout=30)
print(json.dumps({"ok": "started"}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = {"ok": commands[command.pop("do")](**command)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
client.stop()
client.close()
