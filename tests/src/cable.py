"""A slow and lossy cable: hands to the switch, later or never, what comes from a machine.

usage: cable.py PORT BRIDGE DELAY_SECS LOSS

PORT is the switch's end of the machine's cable. The switch drops all that comes in there (lan.rs sees to that), after this
program has seen it; what is not lost is sent on the bridge itself, which passes it on to where it belongs. Frames keep
their virtio header, so one that the kernel has not yet cut up or summed is handed back as it is.
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


def tap(interface, protocol):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    tap.bind((interface, protocol))
    return tap


port, bridge, delay_secs, loss = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
# The first half hears everything, the second only sends.
machine, switch = tap(port, ETH_P_ALL), tap(bridge, 0)
machine.setblocking(False)
waiting = collections.deque()
print("ready", flush=True)
while True:
    pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    select.select([machine], [], [], pause)
    try:
        while True:
            frame, (_, _, kind, *_) = machine.recvfrom(FRAME_BYTES_MAX)
            if kind != PACKET_OUTGOING and random.random() >= loss:
                waiting.append((time.monotonic() + delay_secs, frame))
    except BlockingIOError:
        pass
    while waiting and waiting[0][0] <= time.monotonic():
        switch.send(waiting.popleft()[1])
