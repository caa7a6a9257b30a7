"""The programs that are compared, with their default settings except for those here."""

import json
import os
import shutil
import urllib.request
from collections import Counter

from processes import TARGET, Process, free_port, nats_server, standin_proxy, until

NGINX_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
ZOOKEEPER = "/usr/share/java/zookeeper.jar"


def write(path, text):
    path.write_text(text)
    return path


def get_json(port, page):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
        return json.load(answer)


class Node(Process):
    """One nats-server, or another program with the same flags, alone or with routes to others."""

    def __init__(self, folder, name, cluster_port=None, routes=(), leaf_port=None, program=None, settings="", wait=True):
        self.http = free_port()
        port = free_port()
        options = ["-a", "127.0.0.1", "-p", port, "-m", self.http, "-n", name]
        if cluster_port:
            options += ["--cluster_name", "bench", "--cluster", f"nats://127.0.0.1:{cluster_port}"]
            options += ["--routes", ",".join(f"nats://127.0.0.1:{other}" for other in routes)]
        if leaf_port:
            settings += f'leafnodes {{ listen: "127.0.0.1:{leaf_port}" }}\n'
        if settings:
            options += ["-c", write(folder / f"{name}.conf", settings)]
        super().__init__(folder, name, program or nats_server(), *options, port=port, wait=wait)

    def routes(self):
        """Returns the number of servers to which all routes are open: one, or those of the pool and one for the system account."""
        pool = get_json(self.http, "/varz")["cluster"].get("pool_size")
        found = Counter(route["remote_id"] for route in get_json(self.http, "/routez")["routes"] or [])
        return sum(count >= (pool + 1 if pool else 1) for count in found.values())


def cluster(folder, count, running):
    """Starts this many nodes with routes to each other. `running` is the ExitStack that ends them."""
    ports = [free_port() for _ in range(count)]
    nodes = [running.enter_context(Node(folder, f"node-{n}", port, ports)) for n, port in enumerate(ports)]
    joined(nodes)
    return nodes


def joined(nodes):
    until("all nodes have routes to all", lambda: all(node.routes() == len(nodes) - 1 for node in nodes))


def sidecar(folder, upstreams, *options, name="sidecar", settings="", wait=True):
    """Starts the sidecar. `.listen` is its port, `.http` that of its pages."""
    port, http = free_port(), free_port()
    config = write(folder / f"{name}.toml", settings)
    words = ["--config", config, "--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{http}"]
    for upstream in upstreams:
        words += ["--upstream", f"nats://127.0.0.1:{upstream}"]
    process = Process(folder, name, standin_proxy(), *words, *options, port=port if wait else None)
    process.listen, process.http = port, http
    return process


def relay(folder, upstream):
    port = free_port()
    program = TARGET / "release/relay"
    return Process(folder, "relay", program, f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", port=port)


def haproxy(folder, upstream, tls=""):
    """Starts HAProxy. `tls` are words for its connections to the node."""
    port = free_port()
    settings = f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen nats
    bind 127.0.0.1:{port}
    server node 127.0.0.1:{upstream} {tls}
"""
    return Process(folder, "haproxy", "haproxy", "-db", "-f", write(folder / "haproxy.cfg", settings), port=port)


def nginx(folder, upstream):
    """Starts nginx. Returns None if it is not installed."""
    if not (shutil.which("nginx") and os.path.exists(NGINX_MODULE)):
        return None
    port = free_port()
    settings = f"""
load_module {NGINX_MODULE};
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
stream {{
    server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{upstream}; proxy_timeout 1h; }}
}}
"""
    return Process(folder, "nginx", "nginx", "-c", write(folder / "nginx.conf", settings), port=port)


def leaf(folder, node_leaf_port):
    port = free_port()
    settings = f"""
listen: "127.0.0.1:{port}"
server_name: leaf
leafnodes {{ remotes: [ {{ url: "nats-leaf://127.0.0.1:{node_leaf_port}" }} ] }}
"""
    return Process(folder, "leaf", nats_server(), "-c", write(folder / "leaf.conf", settings), port=port)


def zookeeper(folder):
    """Starts ZooKeeper. Returns None if it is not installed."""
    if not os.path.exists(ZOOKEEPER):
        return None
    port = free_port()
    settings = f"""
dataDir={folder}/zookeeper
clientPort={port}
clientPortAddress=127.0.0.1
tickTime=500
admin.enableServer=false
"""
    config = write(folder / "zoo.cfg", settings)
    java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", ZOOKEEPER]
    return Process(folder, "zookeeper", *java, "org.apache.zookeeper.server.quorum.QuorumPeerMain", config, port=port)
