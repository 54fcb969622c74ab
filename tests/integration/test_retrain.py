"""Retraining for real with a small net: skipped, run, judged; interrupted, out of memory, out of room, come apart."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
import tensorflow as tf
from rows_made import source_file
from skimage import data
from versions_made import ship

from model import base_set, checkpoints, perceptual, retraining
from model.curves import Curves
from model.perceptual import perceptual_hash
from model.train import LossNotFinite
from worker import curated, manifest, retrain, training_runs, versions
from worker.db import Database
from worker.errors import OutputFull, TrainingTaken
from worker.learning_tables import CuratedPhoto, CuratedState, RunState, TrainingRun
from worker.settings import CURATED_ROOT, Settings
from worker.tables import FileState, Root, RootState

#: several short trainings each; a busy machine decides no test
pytestmark = pytest.mark.timeout(600)

PHOTOS = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Crops of four photographs, in two slices."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(PHOTOS):
        rgb = getattr(data, ("astronaut", "chelsea", "coffee", "rocket")[number % 4])()
        top, left = random.integers(0, rgb.shape[0] - 160), random.integers(0, rgb.shape[1] - 160)
        path = folder / ("cats" if number % 4 == 1 else "things") / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), rgb[top : top + 160, left : left + 160, ::-1])
    return folder


@pytest.fixture
def settings(photos: Path, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A small champion, few steps."""
    ship(monkeypatch, tmp_path / "shipped", seed=1)
    return Settings(state_dir=state_dir, retrain_steps=20, retrain_batch=4, retrain_px=64, retrain_minutes=5,
                    retrain_least_new=PHOTOS, gate_holdout_photos=20, retrain_checkpoint_s=0.01)  # fmt: skip


@pytest.fixture
def record_(state_database: Database, photos: Path) -> Database:
    """A record in which all photos are accepted."""
    with state_database.writing() as session:
        session.add(Root(name=CURATED_ROOT, path=bytes(photos), output=b"", mode="scan", fs_type="",
                         state=RootState.ONLINE, reason="", identity="{}", files=0))  # fmt: skip
        for path in sorted(photos.rglob("*.png")):
            name = path.relative_to(photos).as_posix()
            sha = hashlib.sha256(path.read_bytes()).hexdigest()
            file = source_file(name.encode(), root=CURATED_ROOT, sha256=sha, reason="")
            file.state = FileState.SUBMITTED
            session.add(file)
            session.flush()
            curated.submit(session, file, sha)
            session.flush()
            photo = curated.by_file(session, file.id)
            assert photo is not None
            photo.state, photo.slice, photo.reason = CuratedState.ACCEPTED, name.split("/")[0], "fit"
            photo.perceptual_hash = f"{photo.id:064x}"
    return state_database


@pytest.fixture(autouse=True)
def no_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops of one photograph may overlap; leaks are tested on their own."""
    monkeypatch.setattr(manifest, "perceptual_hash", lambda rgb: hashlib.sha256(rgb.tobytes()).hexdigest())
    monkeypatch.setattr(manifest, "mirrored_hash", lambda rgb: hashlib.sha256(rgb.tobytes() + b"m").hexdigest())


def rows(database: Database) -> list[TrainingRun]:
    with database.reading() as session:
        found = list(session.scalars(sa.select(TrainingRun).order_by(TrainingRun.id)))
        session.expunge_all()
    return found


def test_too_few_photos_are_skipped_with_a_reason_in_the_record(settings: Settings, record_: Database) -> None:
    ended = retrain.run(settings.model_copy(update={"retrain_least_new": 200}), record_, trigger="now")
    assert ended.state is RunState.SKIPPED
    assert "60 new curated photos" in ended.reason and "200 are needed" in ended.reason
    assert [(row.state, row.reason) for row in rows(record_)] == [("skipped", ended.reason)]


def test_a_run_from_manifest_to_verdict(settings: Settings, record_: Database) -> None:
    seen: list[str] = []
    ended = retrain.run(settings, record_, trigger="now", show=lambda phase, done, says: seen.append(phase))
    row = rows(record_)[0]
    folder = Path(row.directory)
    frozen = json.loads((folder / "manifest.json").read_text())
    assert ended.state in {RunState.REJECTED, RunState.NEEDS_APPROVAL}, (
        ended
    )  # never promoted without operator's photos
    assert list(dict.fromkeys(seen)) == ["freezing", "training", "judging"]
    assert sum(photo["use"] == "holdout" for photo in frozen["curated"]) == 20
    assert frozen["replay"]["kind"] == "self-distillation" and len(frozen["replay"]["photos"]) == 200
    assert frozen["left_out"] == {}
    assert (row.version, row.parent) == (ended.version, "shipped-one")
    assert row.verdict["outcome"] == ended.state and row.verdict["manifest_sha256"] == row.manifest_sha256
    assert row.verdict["challenger"]["weights_sha256"] != row.verdict["champion"]["weights_sha256"]
    assert {check["point"] for check in row.verdict["checks"]} >= {0, 1, 2, 3, 5, 7}
    assert set(row.verdict["reported_slices"]) <= {"curated/cats", "curated/things"}
    assert row.config["replay"] == row.verdict["replay"]["says"] == "self-distillation"
    assert row.config["code"] and row.config["effort"]["batch"] == 4
    for name in ("report.md", "verdict.json", "before-after.png", "training/history.csv"):
        assert (folder / name).stat().st_size > 100, name
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    with record_.reading() as session:
        assert versions.champion(session) is None  # the champion stays
        known = {v.version: (v.state, v.parent) for v in versions.all_versions(session)}
        uses = dict(session.execute(sa.select(CuratedPhoto.use, sa.func.count()).group_by(CuratedPhoto.use)).all())
        assert curated.new_photos(session) == 0
    assert known[row.version][1] == "shipped-one"
    assert uses == {"train": 40, "holdout": 20}
    assert (settings.models / row.version / "CARD.md").is_file()
    again = retrain.run(settings, record_, trigger="now")
    assert again.state is RunState.SKIPPED and "0 new" in again.reason


def test_base_photos_are_known_by_content_and_the_hold_out_of_the_base_set_is_never_replayed(
    settings: Settings, record_: Database, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(photo):
        number = int(photo.path.stem)
        source = "sky" if number < 10 else "things" if number < 30 else ""
        return base_set.Listed("", 1, source, "", held_out=source == "sky") if source else None

    monkeypatch.setattr(base_set, "find", listed)
    monkeypatch.setattr(retrain, "_train", lambda *_: (_ for _ in ()).throw(LossNotFinite("stop here.")))
    base = tmp_path / "base"
    base.mkdir()
    random = np.random.default_rng(1)
    for number in range(40):
        cv2.imwrite(str(base / f"{number:03d}.png"), random.integers(0, 255, (64, 64, 3), np.uint8))
    (base / "050.png").write_bytes(b"no picture")
    retrain.run(settings.model_copy(update={"base_photos": str(base)}), record_, trigger="now")
    (row,) = rows(record_)
    replay = json.loads((Path(row.directory) / "manifest.json").read_text())["replay"]
    assert (replay["kind"], len(replay["photos"])) == ("base photos", 30)
    assert (replay["matched"], replay["held_back"]) == (20, 10)
    assert {photo["base_set"] for photo in replay["photos"]} == {"things", ""}
    assert row.config["replay"] == (
        "base photos, 20 of them of the shipped base set; 10 of the base set's hold-out passed over"
    )
    assert len(list((Path(row.directory) / "photos" / "replay").glob("*.png"))) == 30


def test_which_replay_was_used_is_said() -> None:
    said = manifest.replay_in_words
    assert said({"kind": "shipped base set", "matched": 7, "held_back": 0}) == "shipped base set"
    assert said({"kind": "base photos", "matched": 0, "held_back": 0}) == "base photos"
    assert said({"kind": "self-distillation", "folder": "", "held_back": 0}) == "self-distillation"
    assert said({"kind": "self-distillation", "folder": "/x", "held_back": 2}) == (
        "self-distillation, because no usable photo was found in base_photos; 2 of the base set's hold-out passed over"
    )
    assert said({"kind": "self-distillation"}) == "self-distillation"  # as recorded by 0.1.0's first runs


def test_a_broken_photo_in_the_middle_is_left_out_and_named(
    settings: Settings, record_: Database, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sorted(photos.rglob("*.png"))[30]
    real = broken.read_bytes()
    monkeypatch.setattr(retrain, "_train", lambda *_: (_ for _ in ()).throw(LossNotFinite("stop here.")))
    try:
        broken.write_bytes(real[:2000])
        retrain.run(settings, record_, trigger="now")
    finally:
        broken.write_bytes(real)
    frozen = json.loads((Path(rows(record_)[0].directory) / "manifest.json").read_text())
    assert list(frozen["left_out"]) == [broken.relative_to(photos).as_posix()]
    assert len(frozen["curated"]) == PHOTOS - 1
    with record_.reading() as session:
        assert curated.new_photos(session) == 0  # it starts no further run for its own sake


def test_a_picture_that_became_an_evaluation_picture_after_it_was_accepted_is_left_out(
    settings: Settings, record_: Database, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "perceptual_hash", perceptual_hash)
    monkeypatch.setattr(manifest, "mirrored_hash", perceptual.mirrored_hash)
    monkeypatch.setattr(retrain, "_train", lambda *_: (_ for _ in ()).throw(LossNotFinite("stop here.")))
    chosen = sorted(photos.rglob("*.png"))[7]
    (tmp_path / "judge").mkdir()
    cv2.imwrite(str(tmp_path / "judge" / "mine.jpg"), cv2.imread(str(chosen))[:, ::-1])
    retrain.run(settings.model_copy(update={"evaluation_photos": str(tmp_path / "judge")}), record_, trigger="now")
    frozen = json.loads((Path(rows(record_)[0].directory) / "manifest.json").read_text())
    assert frozen["left_out"][chosen.relative_to(photos).as_posix()] == f"{curated.EVALUATION}: mine.jpg"
    assert len(frozen["left_out"]) < 10


def test_a_curated_folder_that_is_away_fails_the_run_and_uses_no_photo_up(
    settings: Settings, record_: Database
) -> None:
    with record_.writing() as session:
        session.execute(sa.update(Root).values(path=b"/not/mounted"))
    ended = retrain.run(settings, record_, trigger="now")
    assert ended.state is RunState.FAILED and "/not/mounted is not there" in ended.reason
    with record_.reading() as session:
        assert curated.new_photos(session) == PHOTOS


def test_curves_on_a_full_disk_are_not_taken_for_a_full_memory(settings, record_, monkeypatch) -> None:
    def full(*_, curves, **__):
        drawn = Curves(curves, 0.0)
        monkeypatch.setattr(drawn, "_writer", tf.io.TFRecordWriter("/dev/full"))
        drawn.add(1, 0.0, {"g_l1": 0.5})

    monkeypatch.setattr(retraining, "train", full)
    with pytest.raises(OutputFull, match="No space"):
        retrain.run(settings, record_, trigger="now")
    (row,) = rows(record_)
    assert (row.state, row.config["effort"]["batch"]) == ("running", settings.retrain_batch)


def test_a_loss_that_is_no_number_rejects_the_run_and_keeps_the_champion(
    settings: Settings, record_: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = retraining.recipe

    def explosive(version, effort):
        import dataclasses

        made = real(version, effort)
        return dataclasses.replace(made, phases=tuple(dataclasses.replace(p, rate=float("nan")) for p in made.phases))

    monkeypatch.setattr(retraining, "recipe", explosive)
    ended = retrain.run(settings.model_copy(update={"retrain_steps": 120}), record_, trigger="now")
    assert ended.state is RunState.REJECTED and "no number" in ended.reason
    with record_.reading() as session:
        assert versions.champion(session) is None
    assert [path.name for path in settings.models.iterdir()] == ["shipped-one"]


def test_short_memory_halves_the_batch_then_the_size(settings, record_, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def hungry(photos, output, *, preset, **_):
        tried.append((preset.batch, preset.phases[0].size_px))
        if len(tried) < 4:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        raise LossNotFinite("enough seen.")

    monkeypatch.setattr(retraining, "train", hungry)
    settings = settings.model_copy(update={"retrain_batch": 8, "retrain_px": 128})
    retrain.run(settings, record_, trigger="now")
    assert tried == [(8, 128), (4, 128), (2, 128), (2, 96)]
    assert rows(record_)[0].config["effort"]["size_px"] == 96  # a resume starts there


def test_memory_that_never_suffices_fails_the_run_and_frees_its_photos(settings, record_, monkeypatch) -> None:
    def hungry(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(retraining, "train", hungry)
    ended = retrain.run(settings, record_, trigger="now")
    assert ended.state is RunState.FAILED and "memory" in ended.reason
    with record_.reading() as session:
        assert curated.new_photos(session) == PHOTOS


def test_a_full_disk_in_a_checkpoint_interrupts_and_the_next_start_goes_on(
    settings: Settings, record_: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = np.savez, []

    def full(file, **arrays):
        calls.extend(["checkpoint"] * ("step_" in str(getattr(file, "name", file))))
        if len(calls) == 2:
            calls.append("and never again")
            raise OSError(28, "No space left on device", "step")
        real(file, **arrays)

    monkeypatch.setattr(checkpoints.np, "savez", full)
    with pytest.raises(OutputFull, match="No space"):
        retrain.run(settings, record_, trigger="now")
    row = rows(record_)[0]
    assert (row.state, row.phase) == ("running", "interrupted")
    folder = Path(row.directory) / "training" / "checkpoints"
    assert not list(folder.glob("*.partial")) and len(list(folder.glob("step_*.npz"))) == 1
    ended = retrain.run(settings, record_, trigger="now")
    assert ended.run_id == row.id and ended.state in {RunState.REJECTED, RunState.NEEDS_APPROVAL}
    after = rows(record_)
    assert len(after) == 1 and after[0].manifest_sha256 == row.manifest_sha256 and after[0].claim_no == 2


def test_only_one_process_works_on_a_run(record_: Database) -> None:
    def begin(holder: str):
        with record_.writing() as session:
            row, ours = training_runs.begin(session, trigger="now", least_new=1, holder=holder)
            session.expunge(row)
        return row, ours

    first, ours = begin("elsewhere:1:2")
    assert ours
    second, ours = begin("here:3:4")
    assert not ours and f"run {first.id} is under way" in second.reason
    with record_.writing() as session:
        session.execute(sa.update(TrainingRun).where(TrainingRun.id == first.id).values(lease_until=None))
    taken, ours = begin("here:3:4")
    assert ours and taken.id == first.id
    with record_.writing() as session, pytest.raises(TrainingTaken):
        training_runs.finish(session, first, RunState.PROMOTED, "too late")
    assert training_runs.is_alive(training_runs.this_process())
    assert not training_runs.is_alive(training_runs.this_process()[:-1] + "x")


def test_what_was_held_out_once_is_never_learned_from() -> None:
    def photo(number: int, use: str = "") -> CuratedPhoto:
        return CuratedPhoto(id=number, sha256=hashlib.sha256(bytes([number])).hexdigest(), use=use)

    first = manifest.hold_out([photo(n) for n in range(100)], 40)
    assert len(first) == 40 and first == manifest.hold_out([photo(n) for n in reversed(range(100))], 40)
    later = [photo(n, "holdout" if n in first else "train") for n in range(100)] + [photo(n) for n in range(100, 255)]
    second = manifest.hold_out(later, 40)
    assert first <= second and len(second) == 51 and not {p.id for p in later if p.use == "train"} & second
    assert len(manifest.hold_out([photo(n) for n in range(30)], 40)) == 15


def test_a_leak_is_found_whatever_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "perceptual_hash", perceptual.perceptual_hash)
    monkeypatch.setattr(manifest, "mirrored_hash", perceptual.mirrored_hash)
    coffee = data.coffee()
    retraining.write_photo(tmp_path / "holdout" / "a" / "x.png", cv2.resize(coffee, (150, 100))[:, ::-1])
    retraining.write_photo(tmp_path / "holdout" / "a" / "y.png", data.rocket())
    learned = {"use": "train", "perceptual_hash": perceptual_hash(coffee)}
    frozen = manifest.Manifest(tmp_path, {"curated": [learned], "replay": {"photos": []}})
    assert manifest.leaks(frozen, "") == ["a/x.png"]
