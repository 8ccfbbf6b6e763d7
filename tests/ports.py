"""Ports for servers that the tests start in processes of their own."""

import random
import socket
from contextlib import suppress
from pathlib import Path


def free_port() -> int:
    """One that the kernel gives to nobody before its server stands, or while that is away.

    Those that it chooses itself, for port 0 and for a client's end, it may choose again at any moment.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(lowest // 2, lowest), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port below {lowest} is free")
