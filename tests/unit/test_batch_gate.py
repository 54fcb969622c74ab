"""What the gate of a batch reads, how often and when: by a clock of our own, without a record."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import batches, intake
from daemon.batches import FORGET_S, LOOK_AGAIN_S, Gate
from daemon.intake import NotTaken
from worker.settings import RootSettings
from worker.tables import FileState

SETTLE_S = 5.0
NEXT_S = LOOK_AGAIN_S + 0.1


@dataclasses.dataclass
class Box:
    """A root with one batch in it, its gate, the gate's clock, and the files that the gate has hashed."""

    root: Path
    clock_s: float = 1000.0
    read: list[int] = dataclasses.field(default_factory=list)  # inodes, in order

    def gate(self, **batch: object) -> Gate:
        return Gate(RootSettings(path=self.root, output=self.root / "out", **batch), SETTLE_S)  # type: ignore[arg-type]

    def put(self, name: str, content: bytes) -> Path:
        path = self.root / "box" / name
        path.write_bytes(content)
        return path

    def list(self, **listed: bytes) -> None:
        """Pictures by their stems."""
        lines = [f"{hashlib.sha256(content).hexdigest()}  {name}.png\n" for name, content in listed.items()]
        self.put("SHA256SUMS", "".join(lines).encode())


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    made, real = Box(tmp_path), intake.hashed
    (tmp_path / "box").mkdir()

    def hashed(fd: int, go_on: Callable[[], bool]) -> str | None:
        made.read.append(intake.os.fstat(fd).st_ino)
        return real(fd, go_on)

    monkeypatch.setattr(intake, "hashed", hashed)
    monkeypatch.setattr(batches.time, "monotonic", lambda: made.clock_s)
    return made


def reason(held: NotTaken | None, state: FileState) -> str:
    assert held is not None and held.state is state
    return held.reason


def test_a_listed_file_is_read_once_and_only_after_it_was_quiet(box: Box) -> None:
    gate = box.gate(batch="manifest")
    box.list(a=b"aa", b=b"bbbb")
    quiet, growing = box.put("a.png", b"aa"), box.put("b.png", b"b")
    for length in (2, 3, 4):
        told = reason(gate.held(b"box/a.png"), FileState.SETTLING)
        growing.write_bytes(b"b" * length)
        box.clock_s += SETTLE_S - 1
    assert told == "Its batch has files that must be quiet first: settling: b.png."
    assert box.read == [quiet.stat().st_ino], "what grows was read"
    reason(gate.held(b"box/a.png"), FileState.SETTLING)
    box.clock_s += SETTLE_S
    for _ in range(3):
        assert gate.held(b"box/a.png") is None
        box.clock_s += NEXT_S
    assert box.read == [quiet.stat().st_ino, growing.stat().st_ino]


def test_reading_a_batch_ends_when_the_watcher_is_to_end(box: Box) -> None:
    gate = box.gate(batch="manifest")
    box.list(a=b"aa")
    box.put("a.png", b"aa")
    gate.held(b"box/a.png")
    box.clock_s += SETTLE_S
    assert "ended" in reason(gate.held(b"box/a.png", lambda: False), FileState.SETTLING)
    assert gate.held(b"box/a.png") is None


def test_counting_a_batch_ends_when_the_watcher_is_to_end(box: Box) -> None:
    gate = box.gate(batch="count", batch_count=1)
    box.put("a.png", b"")
    assert "ended" in reason(gate.held(b"box/a.png", lambda: False), FileState.SETTLING)
    assert gate.held(b"box/a.png") is None


def test_a_complete_batch_is_forgotten_and_an_incomplete_one_is_not(box: Box) -> None:
    gate = box.gate(batch="manifest")
    box.list(a=b"aa", missing=b"")
    box.put("a.png", b"aa")
    gate.held(b"box/a.png")
    box.clock_s += SETTLE_S
    for _ in range(2):
        assert "missing: missing.png" in reason(gate.held(b"box/a.png"), FileState.BLOCKED)
        box.clock_s += FORGET_S + 1
        gate.held(b"another/a.png")
    assert len(box.read) == 1 and b"box" in gate._batches
    box.list(a=b"aa")
    gate.held(b"box/a.png")
    box.clock_s += SETTLE_S
    assert gate.held(b"box/a.png") is None
    box.clock_s += FORGET_S + 1
    gate.held(b"another/a.png")
    assert set(gate._batches) == {b"another"}, "what is complete is not kept"


def test_a_count_is_of_what_would_be_taken(box: Box) -> None:
    gate = box.gate(batch="count", batch_count=3)
    for name, content in (("a.png", b""), ("scan_0001", b"II*\0"), ("notes.txt", b"text"), (".hidden.png", b"")):
        box.put(name, content)
    assert reason(gate.held(b"box/a.png"), FileState.BLOCKED) == "Its batch has 2 of 3 pictures."
    box.put("notes.txt", b"\x89PNG\r\n\x1a\n, and longer")
    box.clock_s += NEXT_S
    assert gate.held(b"box/a.png") is None


def test_a_manifest_that_is_being_written_releases_nothing(box: Box) -> None:
    """Its first lines come long before its last ones, and are right."""
    gate = box.gate(batch="manifest")
    box.put("a.png", b"aa")
    box.put("b.png", b"bb")
    box.list(a=b"aa")
    for listed in ({"a": b"aa"}, {"a": b"aa", "b": b"bb"}, {"a": b"aa", "b": b"bb", "c": b"cc"}):
        box.list(**listed)
        told = reason(gate.held(b"box/a.png"), FileState.SETTLING)
        assert told == "SHA256SUMS of its batch must be quiet first."
        box.clock_s += SETTLE_S - 1
    box.clock_s += SETTLE_S
    assert "missing: c.png" in reason(gate.held(b"box/a.png"), FileState.BLOCKED)
    box.list(a=b"aa", b=b"bb")
    box.clock_s += NEXT_S
    gate.held(b"box/a.png")
    box.clock_s += SETTLE_S
    with (box.root / "box" / "SHA256SUMS").open("ab"):  # sha256sum reads on
        reason(gate.held(b"box/a.png"), FileState.SETTLING)
    box.clock_s += NEXT_S
    assert gate.held(b"box/a.png") is None


def test_what_settled_after_the_last_look_is_compared(box: Box) -> None:
    """Also where files settle faster than a batch is looked at by the clock."""
    gate = box.gate(batch="manifest")
    gate.settle_s = LOOK_AGAIN_S / 4
    box.list(a=b"aa")
    box.put("a.png", b"aa")
    gate.held(b"box/a.png")
    box.clock_s += LOOK_AGAIN_S + 0.1
    assert gate.held(b"box/a.png") is None
    box.put("a.png", b"another")
    box.clock_s += LOOK_AGAIN_S / 2
    assert gate.held(b"box/a.png") is not None


def test_what_is_no_picture_waits_for_nobody(box: Box) -> None:
    gate = box.gate(batch="manifest")
    box.put("notes.txt", b"words")
    box.put("scan_0001", b"II*\0")
    assert gate.held(b"box/notes.txt") is None
    assert gate.held(b"box/gone.txt") is None
    assert "waits for SHA256SUMS" in reason(gate.held(b"box/scan_0001"), FileState.BLOCKED)
    box.put("SHA256SUMS", b"")
    box.clock_s += NEXT_S
    gate.held(b"box/scan_0001")
    box.clock_s += SETTLE_S
    assert "not in SHA256SUMS" in reason(gate.held(b"box/scan_0001"), FileState.BLOCKED)
    assert gate.held(b"box/notes.txt") is None
