"""Namespaces of its own for a run: network, mounts and processes. When the run ends in any way, the kernel removes all of them.

So a run changes nothing of the machine, needs no free ports, and leaves no process behind.
"""

import os
import sys

INSIDE = "STANDIN_SOAK_INSIDE"
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]


def is_inside():
    return INSIDE in os.environ


def run_again_inside():
    """Replaces this process by one that runs the script again, with the same arguments, in new namespaces."""
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    os.execvp(NAMESPACES[0], [*NAMESPACES, sys.executable, *sys.argv])
