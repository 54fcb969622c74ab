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
        lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in listed.items()]
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
    quiet, growing = box.put("a", b"aa"), box.put("b", b"b")
    for length in (2, 3, 4):
        told = reason(gate.held(b"box/a"), FileState.SETTLING)
        growing.write_bytes(b"b" * length)
        box.clock_s += SETTLE_S - 1
    assert told == "Its batch has files that must be quiet first: settling: b."
    assert box.read == [quiet.stat().st_ino], "what grows was read"
    reason(gate.held(b"box/a"), FileState.SETTLING)
    box.clock_s += SETTLE_S
    for _ in range(3):
        assert gate.held(b"box/a") is None
        box.clock_s += NEXT_S
    assert box.read == [quiet.stat().st_ino, growing.stat().st_ino]


def test_reading_a_batch_ends_when_the_watcher_is_to_end(box: Box) -> None:
    gate = box.gate(batch="manifest")
    box.list(a=b"aa")
    box.put("a", b"aa")
    gate.held(b"box/a")
    box.clock_s += SETTLE_S
    assert "ended" in reason(gate.held(b"box/a", lambda: False), FileState.SETTLING)
    assert gate.held(b"box/a") is None


def test_counting_a_batch_ends_when_the_watcher_is_to_end(box: Box) -> None:
    gate = box.gate(batch="count", batch_count=1)
    box.put("a.png", b"")
    assert "ended" in reason(gate.held(b"box/a.png", lambda: False), FileState.SETTLING)
    assert gate.held(b"box/a.png") is None


def test_a_complete_batch_is_forgotten_and_an_incomplete_one_is_not(box: Box) -> None:
    gate = box.gate(batch="manifest")
    box.list(a=b"aa", missing=b"")
    box.put("a", b"aa")
    gate.held(b"box/a")
    box.clock_s += SETTLE_S
    for _ in range(2):
        assert "missing: missing" in reason(gate.held(b"box/a"), FileState.BLOCKED)
        box.clock_s += FORGET_S + 1
        gate.held(b"another/a")
    assert len(box.read) == 1 and b"box" in gate._batches
    box.list(a=b"aa")
    assert gate.held(b"box/a") is None
    box.clock_s += FORGET_S + 1
    gate.held(b"another/a")
    assert set(gate._batches) == {b"another"}, "what is complete is not kept"


def test_a_count_is_of_what_would_be_taken(box: Box) -> None:
    gate = box.gate(batch="count", batch_count=3)
    for name, content in (("a.png", b""), ("scan_0001", b"II*\0"), ("notes.txt", b"text"), (".hidden.png", b"")):
        box.put(name, content)
    assert reason(gate.held(b"box/a.png"), FileState.BLOCKED) == "Its batch has 2 of 3 pictures."
    box.put("notes.txt", b"\x89PNG\r\n\x1a\n, and longer")
    box.clock_s += NEXT_S
    assert gate.held(b"box/a.png") is None
