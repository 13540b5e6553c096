"""A network between namespaces of this machine, with a latency and a bandwidth: what machines in a cluster have between them.
Linux, root. Packets go through this process, which keeps each until it is due.

    with network(2, latency=1e-3, bandwidth=1e9) as machines:
        subprocess.Popen([*machines[0].prefix, ...])    # a command in the first namespace, whose address is .address
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
MTU = 65_000  # bytes: few packets, so that this process is no bottleneck
INTERFACE = "link0"
TO = slice(16, 20)  # of an IPv4 packet: the address that it goes to
SPIN = 2e-4  # seconds before a packet is due in which its thread does not sleep, because sleeping is not that exact


@dataclass(frozen=True)
class Machine:
    """A namespace. prefix: words before a command that is to run in it. address: its IPv4 address. interface: its network."""

    name: str
    address: str
    interface: str = INTERFACE

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]


@contextmanager
def network(count: int, latency: float, bandwidth: float) -> Iterator[list[Machine]]:
    """Machines with a link between every two. latency: seconds one way. bandwidth: bits per second that each one sends."""
    machines = [Machine(f"link{os.getpid()}-{k}", f"10.77.0.{k + 1}") for k in range(count)]
    stop, threads, ends = threading.Event(), [], {}
    try:
        for machine in machines:
            _do(f"ip netns add {machine.name}")
            ends[socket.inet_aton(machine.address)] = _device(machine)
        for end in ends.values():
            threads.append(threading.Thread(target=_carry, args=(end, ends, latency, bandwidth, stop), daemon=True))
            threads[-1].start()
        yield machines
    finally:
        stop.set()
        for thread in threads:
            thread.join(1.0)
        for end in ends.values():
            os.close(end)
        for machine in machines:
            subprocess.run(["ip", "netns", "del", machine.name], check=False)


def _do(command: str) -> None:
    subprocess.run(command.split(), check=True)


def _device(machine: Machine) -> int:
    """The end of a TUN device in a namespace: what is sent there is read here, and what is written here arrives there."""
    end, name = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK), f"t{machine.name}"[-15:]
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    _do(f"ip link set {name} netns {machine.name}")
    inside = f"ip netns exec {machine.name} ip"
    _do(f"{inside} link set {name} name {machine.interface} mtu {MTU}")
    _do(f"{inside} addr add {machine.address}/24 dev {machine.interface}")
    _do(f"{inside} link set {machine.interface} up")
    _do(f"{inside} link set lo up")
    return end


def _carry(source: int, ends: dict[bytes, int], latency: float, bandwidth: float, stop: threading.Event) -> None:
    """Carry what a machine sends: a packet is on its line for its bits, one after the other, and then for the latency."""
    waiting: deque[tuple[float, bytes]] = deque()
    free = 0.0  # when the line is free again
    while not stop.is_set():
        now = time.perf_counter()
        try:
            while True:
                packet = os.read(source, MTU + 100)
                free = max(free, now) + 8 * len(packet) / bandwidth
                waiting.append((free + latency, packet))
        except BlockingIOError:
            pass
        if not waiting:
            _readable(source)
            continue
        left = waiting[0][0] - time.perf_counter()
        if left > SPIN:
            _readable(source, left - SPIN)
        elif left <= 0.0:
            packet = waiting.popleft()[1]
            target = ends.get(packet[TO])
            if target is not None:
                os.write(target, packet)


def _readable(source: int, seconds: float = 0.05) -> None:
    select.select([source], [], [], seconds)
