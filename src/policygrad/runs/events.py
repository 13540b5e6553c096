"""TensorBoard event files, written without the tensorboard package, which is needed only to look at them.

An event file is a sequence of TFRecords: length (uint64), its masked CRC-32C, the data, their masked CRC-32C. The data are the
protocol buffer `Event` (tensorboard/compat/proto/event.proto), of which scalars need five fields. Importing the package's own
writer would cost a third of a second.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path

MOST = 3.4028234e38  # of 32 bits
PATTERN = "events.out.tfevents.*"


class EventFile:
    """Scalars by tag and step, in a file that is whole after every call.

    A directory that has event files already gets another one, which goes on from there: a killed run may have left half a
    record at the end of the last. reopen: go on in the last one, which this process has written itself.
    """

    def __init__(self, directory: Path, reopen: bool = False) -> None:
        files = sorted(directory.glob(PATTERN))
        started = int(time.time())
        if files and not reopen:  # TensorBoard reads them in the order of their names
            started = max(started, int(files[-1].suffixes[-2][1:]) + 1)
        self.path = files[-1] if files and reopen else directory / f"events.out.tfevents.{started:010d}.policygrad"
        self.restarted = bool(files) and not reopen

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add numbers at a step; they are in the file when this returns."""
        data = b""
        if not self.path.exists():
            data += record(event(0, field(3, b"brain.Event:2")))
            if self.restarted:  # TensorBoard drops what an earlier file says of this step and later ones
                data += record(event(step, field(7, b"\x08\x01")))  # session_log { status: START }
        values = b"".join(
            field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", min(max(value, -MOST), MOST)))
            for tag, value in scalars.items()
        )
        with self.path.open("ab") as file:
            file.write(data + record(event(step, field(5, values))))


def event(step: int, content: bytes) -> bytes:
    """An `Event`: wall_time = 1, step = 2, and its content, one of file_version = 3, summary = 5, session_log = 7."""
    return b"\x09" + struct.pack("<d", time.time()) + b"\x10" + varint(step) + content


def field(number: int, data: bytes) -> bytes:
    """A protocol buffer's field of bytes: tag, length, data."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def record(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated by 15 bits and shifted, as TFRecords have it: 0 is then no checksum of nothing."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, polynomial 0x1EDC6F41 reflected (RFC 3720, B.4); zlib has the other one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()
