"""From a colour photo in the curated folder to its verdict: watcher's record, worker's check, a person's last word."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
import sqlalchemy as sa
from click.testing import CliRunner
from skimage import data

from daemon import curated_look
from daemon.cli import main
from daemon.reconcile import CuratedReconciler
from worker import answers, curated, curation, retrain_commands
from worker.db import Database, after
from worker.errors import CuratedRefused
from worker.learning_tables import CuratedPhoto, CuratedState
from worker.marking import SOURCE_TYPES
from worker.settings import CURATED_ROOT, Settings, load
from worker.tables import FileState, Job, Root, RootState, SourceFile

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def save(path: Path, rgb: np.ndarray, *options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1], list(options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photographs and much that is none."""
    base = tmp_path / "curated"
    for name in PHOTOS:
        save(base / "museum" / f"{name}.png", getattr(data, name)())
    coffee = data.coffee()
    save(base / "z" / "gray.png", np.repeat(coffee.mean(2, keepdims=True), 3, 2).astype(np.uint8))
    save(base / "z" / "small.png", cv2.resize(coffee, (150, 100)))
    save(base / "z" / "half.jpg", cv2.resize(coffee, None, fx=0.5, fy=0.5), cv2.IMWRITE_JPEG_QUALITY, 40)
    save(base / "z" / "mirrored.png", coffee[:, ::-1])
    (base / "z" / "again.png").write_bytes((base / "museum" / "coffee.png").read_bytes())
    (base / "z" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (base / "manifest.csv").write_text(
        "file,category,licence,origin\nmuseum/coffee.png,still life,CC0,Rachel Michetti\n", encoding="utf-8"
    )
    return base


def watch_once(database: Database, folder: Path) -> CuratedReconciler:
    """What the watcher does in its first two looks at a quiet folder."""
    with database.writing() as session:
        if session.get(Root, CURATED_ROOT) is None:
            session.add(Root(name=CURATED_ROOT, path=bytes(folder), output=b"", mode="scan", fs_type="",
                             state=RootState.ONLINE, reason="", identity="{}", files=0))  # fmt: skip
    reconciler = CuratedReconciler(database, CURATED_ROOT, bytes(folder), 0.0, 3)
    reconciler.full_scan(lambda: True)
    reconciler.take_settled()
    return reconciler


def check_all(database: Database, **settings: object) -> int:
    total = 0
    while count := curation.check_waiting(database, Settings(**settings)):
        total += count
    return total


def verdicts(database: Database) -> dict[str, tuple[str, str]]:
    with database.reading() as session:
        rows = session.scalars(sa.select(CuratedPhoto))
        return {photo.display_path: (photo.state, photo.reason.split(":")[0]) for photo in rows}


def test_every_photo_gets_a_verdict_with_its_reason(record: Database, folder: Path) -> None:
    watch_once(record, folder)
    with record.reading() as session:
        assert curated.waiting(session) == 10
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 0
        states = dict(session.execute(sa.select(SourceFile.display_path, SourceFile.state)).all())
    assert states["manifest.csv"] == FileState.IGNORED
    assert check_all(record) == 10
    assert verdicts(record) == {
        **{f"museum/{name}.png": ("accepted", "fit to be learned from") for name in PHOTOS},
        "z/gray.png": ("rejected", "gray"),
        "z/small.png": ("rejected", "too small"),
        "z/half.jpg": ("rejected", "near-duplicate"),
        "z/mirrored.png": ("rejected", "near-duplicate"),
        "z/again.png": ("rejected", "duplicate"),
        "z/torn.jpg": ("rejected", "broken"),
    }
    with record.reading() as session:
        photos = {photo.display_path: photo for photo in session.scalars(sa.select(CuratedPhoto))}
        coffee = photos["museum/coffee.png"]
        assert (coffee.slice, coffee.licence, coffee.origin) == ("still life", "CC0", "Rachel Michetti")
        assert photos["museum/rocket.png"].slice == "museum"
        assert (coffee.width_px, coffee.height_px) == (600, 400)
        assert {photos[f"z/{name}"].duplicate_of for name in ("half.jpg", "mirrored.png", "again.png")} == {coffee.id}
        assert curated.new_photos(session) == 4
        assert dict(curated.rejections(session))["near-duplicate"] == 2
    watch_once(record, folder)
    assert check_all(record) == 0  # nothing is checked twice


def test_neighbours_of_the_operators_evaluation_pictures_are_refused_for_good(
    record: Database, folder: Path, tmp_path: Path
) -> None:
    save(tmp_path / "judge" / "mine.jpg", cv2.resize(data.coffee()[:, ::-1], (300, 200)))
    watch_once(record, folder)
    check_all(record, evaluation_photos=str(tmp_path / "judge"))
    assert verdicts(record)["museum/coffee.png"] == ("rejected", curated.EVALUATION)
    with record.writing() as session:
        coffee = session.scalars(sa.select(CuratedPhoto).where(CuratedPhoto.display_path == "museum/coffee.png")).one()
        with pytest.raises(CuratedRefused, match="worthless"):
            curated.overrule(session, coffee.id, CuratedState.ACCEPTED, "", "me")


def lapse(database: Database) -> None:
    """What was put off is due."""
    with database.writing() as session:
        session.execute(
            sa.update(CuratedPhoto).where(CuratedPhoto.lease_until.is_not(None)).values(lease_until=after(-1))
        )


def test_photos_wait_while_their_folder_is_away(record: Database, folder: Path, tmp_path: Path) -> None:
    """Without a strike, however often it is tried; what the watcher knows of the folder it says late."""
    watch_once(record, folder)
    folder.rename(tmp_path / "away")
    for _ in range(curated.MOST_LOST + 1):
        assert check_all(record) == 0
        lapse(record)
    with record.writing() as session:
        photos = session.scalars(sa.select(CuratedPhoto)).all()
        assert {(photo.state, photo.lost) for photo in photos} == {(CuratedState.PENDING, 0)}
        assert photos[0].reason.startswith("Waits: The folder ") and "is not there" in photos[0].reason
        session.get_one(Root, CURATED_ROOT).state = RootState.OFFLINE
        session.flush()
        assert curated.waiting(session) == 0 and curated.claim(session) is None
        session.get_one(Root, CURATED_ROOT).state = RootState.ONLINE
    (tmp_path / "away").rename(folder)
    assert check_all(record) == 10


def test_photos_wait_while_the_share_below_their_folder_is_away(record: Database, folder: Path) -> None:
    watch_once(record, folder)
    with record.writing() as session:
        session.get_one(Root, CURATED_ROOT).identity = json.dumps({"shares": ["museum"]})
    (folder / "museum").rename(folder.parent / "away")
    (folder / "museum").mkdir()  # the mount point
    assert check_all(record) == 6
    assert {state for path, (state, _) in verdicts(record).items() if path.startswith("museum/")} == {"pending"}
    (folder / "museum").rmdir()
    (folder.parent / "away").rename(folder / "museum")
    lapse(record)
    assert check_all(record) == 4


@pytest.mark.parametrize("silent", ["museum", "judge"])
def test_photos_wait_while_a_folder_does_not_answer(
    record: Database, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    save(tmp_path / "judge" / "mine.jpg", cv2.resize(data.astronaut()[::-1], (300, 200)))
    watch_once(record, folder)
    real = answers.ask

    def ask(about: bytes, question: Callable[[], object], patience_s: float, *, what: str) -> object:
        if about.endswith(silent.encode()):
            raise answers.NoAnswer(about, 7)
        return real(about, question, 60, what=what)

    monkeypatch.setattr(curation, "ask", ask)
    check_all(record, evaluation_photos=str(tmp_path / "judge"))
    with record.reading() as session:
        photo = session.scalars(sa.select(CuratedPhoto).where(CuratedPhoto.display_path == "museum/coffee.png")).one()
        assert (photo.state, photo.lost) == (CuratedState.PENDING, 0)
        assert f"{silent} does not answer (for 7 s)" in photo.reason
    assert verdicts(record)["z/gray.png"] == ("rejected", "gray")


def test_new_content_is_checked_anew_and_an_old_check_does_not_count(record: Database, folder: Path) -> None:
    reconciler = watch_once(record, folder)
    with record.writing() as session:
        held = curated.claim(session, 60)
    assert held is not None
    path = folder / os.fsdecode(held.path)
    save(path, data.astronaut()[::-1])
    reconciler.full_scan(lambda: True)
    reconciler.take_settled()
    with record.writing() as session:
        assert not curated.settle(session, held, CuratedState.ACCEPTED, "too late")
        again = curated.claim(session, 60)
        assert again is not None and again.id == held.id and again.sha256 != held.sha256


def test_a_photo_that_ends_its_worker_is_given_up(record: Database, folder: Path) -> None:
    watch_once(record, folder)
    first = None
    for _ in range(curated.MOST_LOST):
        with record.writing() as session:
            photo = curated.claim(session, -1)  # its worker died at once, and the lease is over
        assert photo is not None and photo.id == (first or photo.id)
        first = photo.id
    with record.writing() as session:
        other = curated.claim(session, 60)
        assert other is not None and other.id != first
    with record.reading() as session:
        given_up = session.get_one(CuratedPhoto, first)
        assert (given_up.state, given_up.reason) == ("rejected", "its check ended the worker 3 times")


def test_the_verbs(state_database: Database, state_dir: Path, folder: Path) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["curated", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    watch_once(state_database, folder)
    check_all(state_database)
    rows = json.loads(run("list", "--json"))
    gray = next(row["id"] for row in rows if row["path"] == "z/gray.png")
    torn = next(row["id"] for row in rows if row["path"] == "z/torn.jpg")
    assert json.loads(run("show", str(gray)))["reason"].startswith("gray")
    assert "is accepted" in run("accept", str(gray))
    assert "has not been read" in run("accept", str(torn), code=2)
    assert "is rejected" in run("reject", str(gray), "--reason", "after all")
    told = json.loads(run("stats", "--json"))
    assert told["states"] == {"accepted": 4, "rejected": 6}
    assert (told["new"], told["slices"]) == (4, {"museum": 3, "still life": 1})
    assert len(run("list", "--state", "rejected").splitlines()) == 6
    assert "after all" in run("list")
    why = CliRunner().invoke(main, ["why", str(folder / "z" / "mirrored.png")]).output
    assert "near-duplicate" in why, why


def test_what_a_model_has_coloured_is_no_photo_unless_a_person_says_so(record: Database, folder: Path) -> None:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" i:DigitalSourceType='
        f'"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
    )
    (folder / "derivatives").mkdir()
    for name in ("coffee.jpg", "rocket.tif"):
        picture = pyvips.Image.new_from_array(getattr(data, name[:6])())
        picture = picture.copy()
        picture.set_type(pyvips.GValue.blob_type, "xmp-data", packet.encode())
        picture.write_to_file(str(folder / "derivatives" / name))
    for name in ("museum/coffee.png", "museum/rocket.png"):
        (folder / name).unlink()
    watch_once(record, folder)
    check_all(record)
    told = verdicts(record)
    assert told["derivatives/coffee.jpg"] == told["derivatives/rocket.tif"] == ("rejected", curated.GENERATED)
    with record.writing() as session:
        photo = session.scalars(sa.select(CuratedPhoto).where(CuratedPhoto.display_path.like("%coffee.jpg"))).one()
        curated.overrule(session, photo.id, CuratedState.ACCEPTED, "corrected by hand", "me")
    assert verdicts(record)["derivatives/coffee.jpg"][0] == "accepted"


def test_a_run_in_the_foreground_needs_no_daemon_to_find_and_check_photos(
    folder: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHROM_CURATED", str(folder))
    monkeypatch.setenv("PHOTOCHROM_SETTLE_S", "0.1")
    monkeypatch.setattr(retrain_commands, "use_device", lambda _: None)
    assert not (state_dir / "photochrom.db").exists()
    done = CliRunner().invoke(main, ["retrain", "--now"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("Nothing to do: 4 new curated photos since the last run, 200 are")
    with contextlib.closing(sqlite3.connect(state_dir / "photochrom.db")) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM curated_photos GROUP BY state").fetchall())
        held = connection.execute("SELECT watcher FROM roots").fetchall()
    assert states == {"accepted": 4, "rejected": 6} and held == [(None,)]
    assert "4 new" in CliRunner().invoke(main, ["retrain", "--now"]).stdout  # nothing twice


def test_a_folder_that_a_daemon_watches_is_left_to_it(
    state_database: Database, folder: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHROM_CURATED", str(folder))
    assert curated_look.look_once(load().model_copy(update={"curated": ""})) is False
    with state_database.writing() as session:
        session.add(Root(name=CURATED_ROOT, path=bytes(folder), output=b"", mode="scan", fs_type="", identity="{}",
                         state=RootState.ONLINE, reason="", files=0, watcher="daemon",
                         watcher_until=after(60)))  # fmt: skip
    assert curated_look.look_once(load()) is False
    with state_database.reading() as session:
        assert session.get_one(Root, CURATED_ROOT).watcher == "daemon"
        assert curated.waiting(session) == 0


def test_the_curated_folder_is_watched_only_where_it_is_there_or_named(tmp_path: Path, monkeypatch) -> None:
    assert load().curated_root is None
    (Path.cwd() / "curated").mkdir()
    found = load().curated_root
    assert found is not None and found.path == Path.cwd() / "curated"
    monkeypatch.setenv("PHOTOCHROM_CURATED", "")
    assert load().curated_root is None
    monkeypatch.setenv("PHOTOCHROM_CURATED", str(tmp_path / "nowhere"))
    assert load().curated_root is not None
