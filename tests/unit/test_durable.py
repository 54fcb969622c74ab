"""What a row calls done is on the disk: each fsync of a publication, in order, and what had its name by then."""

import os
from pathlib import Path

import pytest

from worker import names, publish


@pytest.fixture
def synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Of each fsync: what it was of, below the output, and whether the derivative had its name already."""
    seen, fsync = list[tuple[str, bool]](), os.fsync

    def noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        name = "temporary" if path.suffix == ".part" else path.relative_to(tmp_path).as_posix()
        seen.append((name, (tmp_path / "box" / "a__color.tif").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return seen


def publish_one(root: Path, data: bytes, replaces: tuple[str, ...] = ()) -> str:
    with publish.Publication(root, b"box", job_id=7, claim_no=1) as publication:
        os.write(publication.fd, data)
        planned = publication.plan(names.derivative_names(b"box/a.tif", b".tif"), replaces=replaces)
        return publication.commit(planned, replaces=replaces).sha256


def test_bytes_are_on_the_disk_before_the_plan_and_mode_before_the_name(
    tmp_path: Path, synchronised: list[tuple[str, bool]]
) -> None:
    """A row tells the sha256 once it is planned; a power cut after that may not leave other bytes under the name."""
    (tmp_path / "box").mkdir()
    with publish.Publication(tmp_path, b"box", job_id=7, claim_no=1) as publication:
        os.write(publication.fd, b"pixels")
        planned = publication.plan(names.derivative_names(b"box/a.tif", b".tif"))
        assert synchronised == [("temporary", False)]
        publication.commit(planned)
    assert synchronised == [("temporary", False), ("temporary", False), ("box", True)]


def test_a_derivative_that_is_replaced_is_on_the_disk_too(tmp_path: Path, synchronised: list[tuple[str, bool]]) -> None:
    first = publish_one(tmp_path, b"one")
    synchronised.clear()
    publish_one(tmp_path, b"two", (first,))
    assert synchronised == [("temporary", True), ("temporary", True), ("box", True)]


def test_a_folder_that_is_made_is_on_the_disk_with_what_lies_in_it(
    tmp_path: Path, synchronised: list[tuple[str, bool]]
) -> None:
    """Else a power cut takes the folder, and with it a derivative that a row calls done."""
    publish_one(tmp_path, b"pixels")
    assert (".", False) in synchronised, "the entry of the new folder was never brought to the disk"
