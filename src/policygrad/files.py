"""Reading files that may be malicious, and writing files so that they are complete or do not exist.

Whatever is read is a regular file (no pipe, no device) of bounded size; JSON is bounded in size and in what it takes in
memory, its numbers are finite and of bounded length, and no key stands twice. What it should say is the business of `forms`.
Nothing is written through a link, symbolic or hard: a new file takes its place, and adding to one is refused.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from policygrad.errors import FileError

MIB = 2**20
MAX_TABLE = 16 * MIB  # bytes of a file of settings
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # of a process by its number


class BadFileError(FileError, ValueError):
    """A file cannot be opened, is not a regular file, is too large, or has unexpected contents."""


@contextmanager
def opened(path: str | Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading. Raises BadFileError, also for a pipe or a device."""
    with os.fdopen(_descriptor(path), "rb") as file:
        yield file


def _descriptor(path: str | Path) -> int:
    """The descriptor of a regular file, opened for reading. Raises BadFileError."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise BadFileError(f"cannot read {path}: {reason(error)}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise BadFileError(f"cannot read {path}: it is a directory, a pipe or a device, and must be a file")
    return number


def read_bytes(path: str | Path, most: int = MAX_TABLE) -> bytes:
    """The bytes of a file. Raises BadFileError for a file with more than `most` bytes."""
    number = _descriptor(path)
    try:
        size = os.fstat(number).st_size
        data = _read(number, most + 1) if size <= most else b""
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {reason(error)}") from error
    finally:
        os.close(number)
    if max(size, len(data)) > most:
        raise BadFileError(f"cannot read {path}: it has {size:,} bytes, more than the {most:,} it may have")
    return data


def read_part(path: str | Path, most: int, last: bool = False) -> bytes:
    """The first bytes of a file, or its last ones: `most` of them or all that there are. Raises BadFileError."""
    number = _descriptor(path)
    try:
        if last:
            os.lseek(number, max(os.fstat(number).st_size - most, 0), os.SEEK_SET)
        return _read(number, most)
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {reason(error)}") from error
    finally:
        os.close(number)


def _read(number: int, most: int) -> bytes:
    """The next bytes of an open file, `most` of them or all that there are: a file object would take five times as long."""
    pieces = []
    while most > 0 and (piece := os.read(number, min(most, MIB))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def read_text(path: str | Path, most: int = MAX_TABLE) -> str:
    """The text of a UTF-8 file."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise BadFileError(f"cannot read {path}: it is not text ({error.reason} at byte {error.start:,})") from error


def read_json(path: str | Path, most: int = MAX_TABLE, memory: int = 8 * MIB) -> Any:
    """A JSON file; most: bytes it may have; memory: see `parse_json`. Raises BadFileError, naming it."""
    try:
        return parse_json(read_text(path, most), memory=memory)
    except BadFileError:
        raise
    except ValueError as error:
        raise BadFileError(f"cannot read {path}: {error}") from error


def parse_json(text: str, bits: int = 64, memory: int = 8 * MIB) -> Any:
    """The value of a JSON text. bits: of its largest whole number. memory: bytes that it may take beyond twice its length.

    Raises ValueError, not naming the file.
    """
    entries, containers = text.count(","), text.count("[") + text.count("{") + text.count(":")
    if 100 * containers + 32 * entries > memory + 2 * len(text):  # what Python takes, about
        raise ValueError("it has too many entries")
    try:
        return _decoder(bits).decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@cache
def _decoder(bits: int) -> json.JSONDecoder:
    """What reads JSON with whole numbers of so many bits."""

    def whole(digits: str) -> int:
        number = int(digits) if len(digits) <= bits else 1 << bits
        if number.bit_length() > bits:
            raise ValueError(f"the number {digits[:20]}… is too large")
        return number

    return json.JSONDecoder(parse_int=whole, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_table)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is not finite")
    return number


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("it has a key twice")
    return table


def write_atomically(path: Path, data: bytes, new: bool = False) -> None:
    """Write a file through a temporary file beside it, which is flushed to the disk, read back, and renamed.

    A link in its place is replaced; temporary files that killed processes have left are removed. new: raise FileExistsError
    where there is such a file; of several that write it at the same time one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}.{os.getpid()}.tmp")
    try:
        with _naming(path):
            temporary.unlink(missing_ok=True)  # a killed process had the same number, or somebody has put a link there
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not _holds(temporary, data):
                raise OSError(f"{path} could not be written: the disk gave back other bytes")
            if new:
                _appear(temporary, path)
            else:
                temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    sweep(path.parent)


def _appear(temporary: Path, path: Path) -> None:
    """Give a file a name that nobody has, or raise FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        temporary.replace(path)


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file has these bytes; it is read piece by piece."""
    view, start = memoryview(data), 0
    with path.open("rb") as file:
        while piece := file.read(MIB):
            if piece != view[start : start + len(piece)]:
                return False
            start += len(piece)
    return start == len(data)


def _sync(folder: Path) -> None:
    """Flush a directory, so that a file's new name outlives a loss of power; where the system can, and we may."""
    try:
        number = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM):
            raise


def sweep(folder: Path) -> None:
    """Remove the temporary files of processes that have ended."""
    with suppress(OSError):  # others' directories and files are theirs
        for name in os.listdir(folder):
            found = TEMPORARY.fullmatch(name)
            if found and not _runs(int(found[1])):
                (folder / name).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is a process of this number, or no way to tell."""
    if os.name == "nt" or process == 0:
        return True
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """Open or create a file for appending, and flush it at the end. Raises BadFileError for a link, for a file of several
    names, and for a pipe.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    if path.is_symlink():
        raise BadFileError(f"{path} is a link, and nothing is written through links: remove it")
    with _naming(path), os.fdopen(os.open(path, flags, 0o666), "ab") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise BadFileError(f"cannot write {path}: it is a pipe or a device, and must be a file")
        if found.st_nlink > 1:
            raise BadFileError(
                f"{path} is a file of {found.st_nlink} names (hard links), which would all change: put a copy in its place"
            )
        yield file


def mapped(path: Path, size: int, new: bool = False) -> mmap.mmap:
    """A file of so many bytes, all 0 at first, as memory that processes share. new: make it, with room on the disk."""
    flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0) | getattr(os, "O_NOFOLLOW", 0)
    number = os.open(path, flags, 0o600)
    try:
        if new:
            os.posix_fallocate(number, 0, size)
        return mmap.mmap(number, size)
    finally:
        os.close(number)


def make_folder(path: Path) -> Path:
    """Make a directory if it does not exist. Raises BadFileError for a link to another place."""
    if path.is_symlink():
        raise BadFileError(f"{path} is a link, and nothing is written through links: remove it")
    path.mkdir(parents=True, exist_ok=True)
    return path


def disk_time(folder: Path) -> float | None:
    """The seconds since 1970 by the clock of the disk that a directory is on, which may be another machine's; None where
    nothing may be written there. A file without a name, or one that is removed at once, is written to see it.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b".")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors that do not: [Errno 28] No space left on device."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def reason(error: Exception) -> str:
    """The reason of an error, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def printable(text: str) -> str:
    """The text in one line, with control and invisible characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
