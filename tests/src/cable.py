"""A slow and lossy cable: passes the frames of a host to the switch late, or drops them.

usage: cable.py PORT BRIDGE DELAY_SECS LOSS

PORT is the switch's end of the host's cable. The switch drops every frame that arrives there (see lan.rs), after this program
has received a copy. The program sends the frames that it does not drop on the interface BRIDGE, and the bridge forwards them.
Frames keep their virtio header, so a frame without checksum or of several segments is given back to the kernel unchanged.
"""

import collections
import random
import select
import socket
import sys
import time

SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_OUTGOING = 4
ETH_P_ALL = 3
BUFFER_BYTES = 32 << 20
FRAME_BYTES_MAX = 1 << 17


def packet_socket(interface, protocol):
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    opened.bind((interface, protocol))
    return opened


port, bridge, delay_secs, loss = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
# `host` receives every frame of the host, `switch` only sends.
host, switch = packet_socket(port, ETH_P_ALL), packet_socket(bridge, 0)
host.setblocking(False)
waiting = collections.deque()
print("ready", flush=True)
while True:
    pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    select.select([host], [], [], pause)
    try:
        while True:
            frame, (_, _, kind, *_) = host.recvfrom(FRAME_BYTES_MAX)
            if kind != PACKET_OUTGOING and random.random() >= loss:
                waiting.append((time.monotonic() + delay_secs, frame))
    except BlockingIOError:
        pass
    while waiting and waiting[0][0] <= time.monotonic():
        switch.send(waiting.popleft()[1])
