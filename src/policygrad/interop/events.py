"""TensorBoard event files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from policygrad.files import appending

MAX_FLOAT32 = 3.4028234e38  # of 32 bits
PATTERN = "events.out.tfevents.*"
NUMBER = re.compile(r"events\.out\.tfevents\.([0-9]{1,15})\..*")


class EventFile:
    """Scalars by tag and step, in a file that is whole after every call.

    In a directory that has event files already it goes on in the last of them.
    """

    def __init__(self, directory: Path) -> None:
        files = sorted(directory.glob(PATTERN))
        self.path = files[-1] if files else directory / f"events.out.tfevents.{int(time.time()):010d}.policygrad"

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add numbers at a step; they are in the file when this returns."""
        # these parts of the package take a tenth of a second to import; its threaded writer would lose what a killed run had
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        values = [
            Summary.Value(tag=tag, simple_value=min(max(x, -MAX_FLOAT32), MAX_FLOAT32)) for tag, x in scalars.items()
        ]
        events = [Event(wall_time=now, step=step, summary=Summary(value=values))]
        if not self.path.exists():
            events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
        with appending(self.path) as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
