"""Names and atomic publishing: complete or not at all, never over a foreign file, never outside the root."""

import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import names, output_folder, publish
from worker.errors import OutputBlocked, OutputFull

relative_paths = st.lists(
    st.binary(min_size=1, max_size=255).filter(lambda b: not set(b) & {0, 47} and b not in (b".", b"..")),
    min_size=1, max_size=4,
).map(b"/".join)  # fmt: skip


def _publish(root: Path, relative: bytes, data: bytes, replaces: tuple[str, ...] = ()) -> publish.Published:
    with publish.Publication(root, os.path.dirname(relative), job_id=7, claim_no=1) as publication:
        os.write(publication.fd, data)
        planned = publication.plan(names.derivative_names(relative, b".tif"), replaces=replaces)
        return publication.commit(planned, replaces=replaces)


def test_names() -> None:
    first, second = names.derivative_names(b"box/a.b.tif", b".tif")
    digits = hashlib.sha256(b"box/a.b.tif").hexdigest()[:8].encode()
    assert (first, second) == (b"box/a.b__color.tif", b"box/a.b__color~" + digits + b".tif")
    assert names.derivative_names(b"a.png", b".png", version="v 2/x")[0] == b"a__color@v-2-x.png"
    assert names.derivative_names(b".hidden", b".tif")[0] == b".hidden__color.tif"


@given(relative_paths, st.sampled_from([b".tif", b".jpeg"]), st.none() | st.text(max_size=60))
def test_names_fit_stay_in_their_directory_and_differ_by_path(relative: bytes, ext: bytes, version: str | None) -> None:
    for name in names.derivative_names(relative, ext, version=version):
        assert os.path.dirname(name) == os.path.dirname(relative)
        assert len(os.path.basename(name)) <= 255
        assert name.endswith(ext)
        assert b"__color" in name
    others = names.derivative_names(relative + b"x", ext, version=version)
    assert names.derivative_names(relative, ext, version=version)[-1] != others[-1]


def test_a_cut_name_is_not_cut_inside_a_character() -> None:
    (name,) = names.derivative_names("ä".encode() * 127 + b".", b".tif")
    assert name.decode().startswith("ä")


@pytest.mark.parametrize("name", [b"a.tif", b"\xff\xfe.tif", b"new\nline.tif", b"x" * 251 + b".tif", b"-rf *.tif"])
def test_a_file_appears_complete(tmp_path: Path, name: bytes) -> None:
    done = _publish(tmp_path, b"deep/er/" + name, b"pixels")
    path = os.path.join(os.fsencode(tmp_path), done.path)
    with open(path, "rb") as file:
        assert file.read() == b"pixels"
    assert done.sha256 == hashlib.sha256(b"pixels").hexdigest()
    umask = os.umask(0)
    os.umask(umask)
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~umask
    assert len(os.listdir(os.path.dirname(path))) == 1  # no temporary file left


def test_who_may_read_a_file_may_enter_the_folders_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o2700)  # what lies in it belongs to its group
    before = os.umask(0o077)
    try:
        with publish.Publication(tmp_path, b"old/new/er", job_id=1, claim_no=1, mode=0o640) as publication:
            publication.commit(publication.plan([b"old/new/er/a.tif"]))
    finally:
        os.umask(before)
    modes = [(tmp_path / path).stat().st_mode & 0o7777 for path in ("old", "old/new", "old/new/er", "old/new/er/a.tif")]
    assert modes == [0o2700, 0o2750, 0o2750, 0o640]


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with publish.Publication(tmp_path, b"", job_id=1, claim_no=1) as publication:
        os.write(publication.fd, b"half")
        assert names.is_temporary(os.listdir(os.fsencode(tmp_path))[0])
    assert list(tmp_path.iterdir()) == []


def test_a_later_claim_removes_what_the_same_jobs_dead_workers_left(tmp_path: Path) -> None:
    stays = [
        names.temporary_name(70, 1),
        names.temporary_name(7, 3),
        names.temporary_name(7, 4),
        b".photochrom-7-1.part",
    ]
    for name in (names.temporary_name(7, 1), names.temporary_name(7, 2), *stays):
        (tmp_path / os.fsdecode(name)).touch()
    with publish.Publication(tmp_path, b"", job_id=7, claim_no=3):
        assert {os.fsencode(path.name) for path in tmp_path.iterdir()} > set(stays)
    assert {os.fsencode(path.name) for path in tmp_path.iterdir()} == set(stays)


def test_what_a_dead_worker_left_is_removed_without_a_next_claim(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    mine, later = (tmp_path / "box" / os.fsdecode(names.temporary_name(7, claim)) for claim in (1, 2))
    for file in (mine, later):
        file.touch()
    publish.remove_left_behind(os.fsencode(tmp_path), b"box", job_id=7, claim_no=2)
    assert (mine.exists(), later.exists()) == (False, True)
    publish.remove_left_behind(os.fsencode(tmp_path), b"gone", job_id=7, claim_no=2)


def test_a_foreign_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a__color.tif").write_bytes(b"somebody else's")
    done = _publish(tmp_path, b"a.tif", b"ours")
    assert b"~" in done.path
    assert (tmp_path / "a__color.tif").read_bytes() == b"somebody else's"
    with pytest.raises(OutputBlocked, match="taken"):
        _publish(tmp_path, b"a.tif", b"third")


def test_our_own_old_derivative_is_replaced_by_its_sha256(tmp_path: Path) -> None:
    old = _publish(tmp_path, b"a.tif", b"old")
    new = _publish(tmp_path, b"a.tif", b"new", replaces=(old.sha256,))
    assert new.path == old.path
    assert (tmp_path / "a__color.tif").read_bytes() == b"new"
    assert _publish(tmp_path, b"a.tif", b"new").path != old.path  # the same bytes may be another scan's


def test_a_name_taken_after_the_plan_is_not_overwritten(tmp_path: Path) -> None:
    with publish.Publication(tmp_path, b"", job_id=1, claim_no=1) as publication:
        os.write(publication.fd, b"ours")
        planned = publication.plan([b"a__color.tif"])
        (tmp_path / "a__color.tif").write_bytes(b"theirs")
        with pytest.raises(OutputBlocked):
            publication.commit(planned)
    assert (tmp_path / "a__color.tif").read_bytes() == b"theirs"


@pytest.mark.parametrize("refuses", [("link",), ("link", "_renameat2")])
def test_file_systems_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: tuple[str, ...]
) -> None:
    def no_links(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", no_links)
    if "_renameat2" in refuses:
        monkeypatch.setattr(output_folder, "_renameat2", lambda *args: False)
    assert _publish(tmp_path, b"a.tif", b"ours").path == b"a__color.tif"
    assert b"~" in _publish(tmp_path, b"a.tif", b"second").path
    assert (tmp_path / "a__color.tif").read_bytes() == b"ours"


def test_a_name_that_was_held_for_a_rename_that_failed_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "not now")

    with monkeypatch.context() as simple:
        simple.setattr(os, "link", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(errno.EPERM, "not here")))
        simple.setattr(output_folder, "_renameat2", lambda *args: False)
        simple.setattr(os, "rename", refused)
        with pytest.raises(OutputBlocked):
            _publish(tmp_path, b"a.tif", b"ours")
    assert list(tmp_path.iterdir()) == []
    assert _publish(tmp_path, b"a.tif", b"ours").path == b"a__color.tif"


def test_many_writers_of_one_name_leave_one_file_each(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    wins: list[int] = []

    def race(i: int) -> None:
        (tmp_path / f"t{i}").write_bytes(b"%d" % i)
        try:
            publish.rename_without_replacing(directory, b"t%d" % i, b"same")
            wins.append(i)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=race, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(directory)
    assert len(wins) == 1
    assert (tmp_path / "same").read_bytes() == b"%d" % wins[0]


@pytest.mark.parametrize("relative", [b"../out", b"a/../../out", b"link/x", b"file/x"])
def test_nothing_is_written_outside_the_root(tmp_path: Path, relative: bytes) -> None:
    root, outside = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").write_bytes(b"")
    with pytest.raises(OutputBlocked):
        publish.Publication(root, relative, job_id=1, claim_no=1)
    assert list(outside.iterdir()) == []


def test_a_folder_swapped_for_a_link_in_the_middle_leads_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
    with publish.Publication(root, b"box/deep", job_id=7, claim_no=1) as publication:
        os.write(publication.fd, b"data")
        (root / "box").rename(root / "moved")
        (root / "box").symlink_to(outside)
        planned = publication.plan([b"box/deep/a.tif"])
        with pytest.raises(OutputBlocked):
            publication.commit(planned)
        (root / "box").unlink()
        (root / "box" / "deep").mkdir(parents=True)
        with pytest.raises(OutputBlocked, match="moved"):
            publication.commit(planned)
    assert [path for path in root.rglob("*") if path.is_file()] == []
    (root / "moved").rename(root / "old")
    (root / "box" / "deep").rmdir()
    (root / "box").rmdir()
    (root / "box").symlink_to(outside)
    with pytest.raises(OutputBlocked):
        publish.Publication(root, b"box/deep", job_id=7, claim_no=2)
    assert list(outside.rglob("*")) == []


def test_a_full_disk_and_a_blocked_one_are_told_apart() -> None:
    for number, kind in ((errno.ENOSPC, OutputFull), (errno.EDQUOT, OutputFull), (errno.EROFS, OutputBlocked)):
        with (
            pytest.raises(kind, match=rf"\({errno.errorcode[number]}: {os.strerror(number)}\)"),
            publish.output_errors(),
        ):
            raise OSError(number, os.strerror(number))


def test_sweeping_takes_old_temporary_files_only(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    old, young = (folder / os.fsdecode(names.temporary_name(i, 1)) for i in (1, 2))
    foreign = folder / ".other.part"
    for path in (old, young, foreign):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    os.utime(foreign, (0, 0))
    removed = publish.sweep_temporaries(tmp_path, older_than_s=3600)
    assert removed == [os.path.join(b"a", os.fsencode(old.name))]
    assert sorted(folder.iterdir()) == sorted([young, foreign])


def test_sweeping_does_not_leave_by_a_link_that_replaces_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, outside, base = tmp_path / "output", tmp_path / "outside", os.fsdecode(names.temporary_name(1, 1))
    for folder in (output / "a", outside):
        folder.mkdir(parents=True)
        (folder / base).touch()
        os.utime(folder / base, (0, 0))
    (tmp_path / "link").symlink_to(output)  # the root itself may be reached by one
    swapped: list[bytes] = []

    def swap(name: bytes) -> bool:
        """Between the listing of the directory and the look at its file."""
        if not swapped:
            (output / "a").rename(output / "moved")
            (output / "a").symlink_to(outside)
        swapped.append(name)
        return names.is_temporary(name)

    monkeypatch.setattr(publish, "is_temporary", swap)
    removed = publish.sweep_temporaries(tmp_path / "link", older_than_s=3600)
    assert (outside / base).exists()
    assert removed == [b"a/" + os.fsencode(base)]
    assert publish.sweep_temporaries(tmp_path / "nowhere", older_than_s=0) == []


def test_copying_an_existing_derivative(tmp_path: Path) -> None:
    first = _publish(tmp_path, b"x/a.tif", b"pixels")
    with publish.Publication(tmp_path, b"y", job_id=2, claim_no=1) as publication:
        assert not publish.copy_into(publication, tmp_path, first.path, sha256="0" * 64)
        assert not publish.copy_into(publication, tmp_path, b"gone/a", sha256=first.sha256)
        assert publish.copy_into(publication, tmp_path, first.path, sha256=first.sha256)
        done = publication.commit(publication.plan(names.derivative_names(b"y/b.tif", b".tif")))
    assert done.sha256 == first.sha256
    assert (tmp_path / "y/b__color.tif").read_bytes() == b"pixels"


def test_re_runs_with_long_names_do_not_meet() -> None:
    made = [
        names.derivative_names(b"a.tif", b".tif", version="v" * 40 + f"+strength{value}")[0] for value in (0.7, 0.8)
    ]
    assert made[0] != made[1]
    assert all(len(name) < 80 for name in made)
    assert names.derivative_names(b"a.tif", b".tif", version="v2+strength0.7")[0] == b"a__color@v2-strength0.7.tif"
