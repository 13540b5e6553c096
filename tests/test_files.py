"""How files are opened, parsed and written, and forms: what is right passes, all else is named and refused."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policygrad.files import (
    BadFileError,
    appending,
    make_folder,
    parse_json,
    printable,
    read_bytes,
    read_json,
    sweep,
    write_atomically,
)
from policygrad.forms import (
    PCG64,
    FormError,
    anything,
    array,
    each,
    flag,
    form_of,
    maybe,
    mersenne,
    number,
    setting,
    source_form,
    table,
    text,
    whole,
)
from policygrad.stored.directory import RunDirectory
from policygrad.training.recorder import cut


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    (tmp_path / "link").symlink_to(path)
    assert read_bytes(tmp_path / "link", 5) == b"12345"
    with pytest.raises(BadFileError, match="x: it has 5 bytes, more than the 4"):
        read_bytes(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for odd in ("pipe", ".", "/dev/zero"):
        with pytest.raises(BadFileError, match="must be a file"):
            read_bytes(tmp_path / odd)
    with pytest.raises(BadFileError, match="No such file"):
        read_bytes(tmp_path / "nothing")
    with pytest.raises(BadFileError, match="null byte"):
        read_bytes("a\0b")


def test_a_file_that_does_not_say_its_size_is_bounded_too() -> None:
    with pytest.raises(BadFileError, match="more than"):
        read_bytes("/proc/self/status", 10)


@pytest.mark.parametrize(
    ("words", "token"),
    [
        ("{", "Expecting"),
        ("NaN", "not finite"),
        ("[-Infinity]", "not finite"),
        ("1e999", "not finite"),
        (str(2**64), "too large"),
        ("9" * 5_000, "too large"),
        ('{"a": 1, "a": 1}', "twice"),
        ("[" * 50_000 + "]" * 50_000, "deep"),
        ("[" * 10**6, "too many"),
        ("[" + "{}," * 10**6 + "{}]", "too many"),
    ],
)
def test_json_that_is_none_or_too_much_is_refused(words: str, token: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=token):
        parse_json(words)
    (tmp_path / "x.json").write_text(words)
    with pytest.raises(BadFileError, match=rf"x\.json: .*{token}"):
        read_json(tmp_path / "x.json")


def test_json_that_is_right_says_the_same_as_ever() -> None:
    data = {"a": [1, -2, 0.5, 1e-300, True, None, "γ", {"b": {}}], "c": 2**64 - 1, "numbers": [0.25] * 10_000}
    assert parse_json(json.dumps(data)) == data
    assert parse_json(str(2**127), bits=128) == 2**127


def test_a_write_is_flushed_read_back_and_renamed_and_then_the_directory_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(number: int) -> None:
        done.append("flush " + ("directory" if Path(f"/proc/self/fd/{number}").is_dir() else "file"))
        sync(number)

    def renamed(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(tmp_path / "new" / "x", b"data")
    assert (tmp_path / "new" / "x").read_bytes() == b"data"
    assert done == ["flush file", "rename", "flush directory"]


def test_a_disk_that_gives_back_other_bytes_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda number: os.pwrite(number, b"b", 0) if path.read_bytes() == b"old" else None)
    with pytest.raises(OSError, match="x could not be written"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*/x'"):
        write_atomically(tmp_path / "x", b"")


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("mine")
    link.symlink_to(victim)
    with pytest.raises(BadFileError, match="link"), appending(link) as file:
        file.write(b"more")
    write_atomically(link, b"new")
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    planted = tmp_path / f".x.{threading.get_ident()}.{os.getpid()}.tmp"
    planted.symlink_to(victim)  # where the temporary file will be
    write_atomically(tmp_path / "x", b"new")
    (tmp_path / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(BadFileError, match="link"):
        make_folder(tmp_path / "elsewhere")
    assert victim.read_text() == "mine"


def test_a_file_of_two_names_is_not_added_to_nor_cut_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    victim, run = tmp_path / "victim", RunDirectory(tmp_path / "run")
    victim.write_text("mine")
    run.path.mkdir()
    os.link(victim, run.metrics_file)
    with pytest.raises(BadFileError, match="2 names"):
        run.append_metrics({"steps": 1})
    with pytest.raises(BadFileError, match="2 names"):
        cut(run, {"metrics.jsonl": 2})
    assert victim.read_text() == "mine"
    os.link(victim, run.config_file)
    run.write_config({})
    assert victim.read_text() == "mine"
    cut(run, {"metrics.jsonl": 0})  # takes away the name alone
    assert victim.read_text() == "mine"


def test_what_is_added_is_in_the_file_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for word in (b"a", b"b"):
        with appending(tmp_path / "x") as file:
            file.write(word)
    assert (tmp_path / "x").read_bytes() == b"ab"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((BadFileError, OSError)), appending(tmp_path / "pipe"):
        pass


def test_temporary_files_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above the largest number of a process
    names = [f".x.{gone}.tmp", f".x.{10**30}.tmp", f".x.{os.getpid()}.tmp", ".x.tmp", f"x.{gone}.tmp", ".x.1.tmp"]
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names[2:])
    (tmp_path / names[0]).touch()
    write_atomically(tmp_path / "y", b"")
    assert names[0] not in os.listdir(tmp_path)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, over = tmp_path / "x", threading.Event()
    contents = {bytes([i]) * 100_000 for i in range(2)}
    write_atomically(path, b"\0" * 100_000)

    def write() -> None:
        for data in sorted(contents) * 10:
            write_atomically(path, data)
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not over.is_set():
        seen.add(path.read_bytes())
    thread.join()
    assert seen <= contents


def test_text_is_printable() -> None:
    assert printable("γ, λ − 1") == "γ, λ − 1"
    assert printable("\x1b[2J\n\u202e\udc80") == r"\x1b[2J\n\u202e\udc80"
    assert printable("\x1b").isprintable()


VECTOR = torch.tensor([0.0, 1.0])
GENERATOR = torch.Generator().get_state()
RNG = np.random.default_rng(0).bit_generator.state
SOURCE = {"rng": RNG, "steps_done": 9, "episodes_done": 2, "returns": [1.0, 2.0], "lengths": [4, 5]}
RIGHT: list[tuple[Any, Any]] = [
    (whole(), 0),
    (whole(-1, 1), -1),
    (number(), 1),
    (number(0.0, 1.0), 0.5),
    (flag, False),
    (text(3), "abc"),
    (text(9, lines=True), "a\nb"),
    (text(choices=("a", "b")), "b"),
    (maybe(whole()), None),
    (each(whole(), 2), [1, 2]),
    (table({"a": whole()}, optional={"b": flag}), {"a": 1}),
    (table({}, others=whole()), {"x": 1}),
    (array((2,), "float32", 0.0), VECTOR),
    (array((None,), "float32|float64"), VECTOR.double()),
    (array((), "bool", None), torch.tensor(True)),
    (array((2,), "float32", None), VECTOR / 0.0),
    (array((0, 3), "float32"), torch.zeros(0, 3)),
    (anything, {"a": [1, {"b": VECTOR}]}),
    (setting, [1, "a", None, 0.5, True]),
    (PCG64, RNG),
    (mersenne(len(GENERATOR)), GENERATOR),
    (source_form(), SOURCE),
    (source_form({"more": anything}), SOURCE | {"more": [VECTOR], "begun": True}),
]
WRONG: list[tuple[Any, Any, str]] = [
    (whole(), -1, "whole number"),
    (whole(), 1.0, "whole number"),
    (whole(), True, "whole number"),
    (number(), float("inf"), "finite"),
    (number(), "1", "finite"),
    (number(0.0, 1.0), 2, r"in \[0, 1\]"),
    (flag, 1, "true or false"),
    (text(3), "abcd", "at most 3"),
    (text(), "\x1b[2J", r"printable.*\\x1b"),
    (text(), "a\nb", "printable"),
    (text(choices=("a", "b")), "c", "one of a, b"),
    (maybe(whole()), "x", "whole number"),
    (each(whole(), 2), [1, 2, 3], "list"),
    (each(whole(), 2), [1, "x"], "it/1"),
    (table({"a": whole()}), {}, "has no a"),
    (table({"a": whole()}), [], "table"),
    (table({}), {"b": 1}, "'b', which is not known"),
    (table({"a": table({"b": whole()})}), {"a": {"b": None}}, "it/a/b"),
    (array((2,), "float32", 0.0), -VECTOR, "finite"),
    (array((2,), "float32"), VECTOR / 0.0, "finite"),
    (array((2,), "float32"), VECTOR * 1e38, "finite"),
    (array((2,), "float32"), VECTOR.double(), r"float32 \(2\), got an array float64"),
    (array((3,), "float32"), VECTOR, r"float32 \(3\)"),
    (array((None, None), "float32"), VECTOR, "any, any"),
    (array((2,), "float32"), [0.0, 1.0], "array"),
    (setting, {"a": 1}, "finite"),
    (setting, "x" * 10_000, "at most"),
    (PCG64, RNG | {"bit_generator": "MT19937"}, "PCG64"),
    (mersenne(len(GENERATOR)), torch.zeros_like(GENERATOR), "state of a generator"),
    (source_form(), SOURCE | {"episodes_done": 1}, "contradict"),
    (source_form(), SOURCE | {"more": 1}, "not known"),
]


@pytest.mark.parametrize(("form", "value"), RIGHT)
def test_a_form_lets_pass_what_it_is_for(form: Any, value: Any) -> None:
    form("it", value)


@pytest.mark.parametrize(("form", "value", "token"), WRONG)
def test_a_form_refuses_all_else_and_says_where(form: Any, value: Any, token: str) -> None:
    with pytest.raises(FormError, match=token) as caught:
        form("it", value)
    assert len(str(caught.value)) < 400


class Kept:
    """A part with a state and its form."""

    def state_dict(self) -> dict[str, Any]:
        return {"a": 1}

    def state_form(self) -> Any:
        return table({"a": whole()})


class More(Kept):
    """Keeps more, and says nothing of it."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"b": 2}


def test_a_subclass_that_keeps_more_and_says_no_form_checks_its_state_itself() -> None:
    form_of(More())("it", More().state_dict())
    form_of(type("Other", (Kept,), {})())("it", Kept().state_dict())
    with pytest.raises(FormError, match="'b', which is not known"):
        form_of(Kept())("it", More().state_dict())
    assert form_of(object()) is anything


def test_what_is_nested_without_end_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(FormError, match="deeply"):
        anything("it", deep)


def test_every_state_of_a_generator_in_use_is_one() -> None:
    generator, form = torch.Generator().manual_seed(1), mersenne(len(GENERATOR))
    for draws in (1, 100, 523, 624, 625, 10_000):
        torch.randperm(draws, generator=generator)
        form("it", generator.get_state())


def test_an_array_is_refused_by_its_type_and_shape_before_it_has_numbers() -> None:
    form = array((2,), "float32", 0.0)
    form("it", torch.empty(2, device="meta"))
    with pytest.raises(FormError):
        form("it", torch.empty(3, device="meta"))
