"""`photochrom train` as a person sees it: the lines it prints, the curves it leaves, what it says of unfit folders."""

import dataclasses
import errno
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from skimage import data
from tensorflow.core.util import event_pb2
from test_training import TINY

import model.train
from daemon.cli import main
from model import config
from model.registry import shipped, weights_path

pytestmark = pytest.mark.timeout(600)

SOURCE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Crops of two colour photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for picture in ("astronaut", "chelsea"):
        for number in range(8):
            crop = getattr(data, picture)()[10 * number :][:200, 10 * number :][:, :200]
            assert cv2.imwrite(str(folder / f"{picture}_{number}.png"), crop[..., ::-1])
    return folder


@pytest.fixture(autouse=True)
def recipe(monkeypatch) -> None:
    monkeypatch.setitem(config.PRESETS, "tiny", TINY)


def train(*arguments: object):
    return CliRunner().invoke(main, ["train", "--preset", "tiny", *map(str, arguments)])


def tags(folder: Path) -> dict[str, set[int]]:
    """Steps of every curve and picture in TensorBoard's files."""
    found: dict[str, set[int]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, set()).add(event.step)
    return found


def test_progress_curves_and_the_last_lines(photos, tmp_path):
    told = train(photos, "--output", tmp_path / "run", "--steps", 80)
    assert told.exit_code == 0, told.output
    line = told.stderr.splitlines()[-1]
    assert re.search(r"^adversarial 100% step 80 \d+/s l1 0\.\d+ gan \d\.\d+ d \d\.\d+/\d\.\d+ ", line), told.stderr
    assert re.search(r" \d:\d\d:\d\d$", line), "time that is left"
    assert len(line) <= 80
    last = told.stdout.splitlines()[-2:]
    assert f"tensorboard --logdir {tmp_path / 'run' / 'tensorboard'}" in last[0]
    assert last[1].startswith("Next: photochrom evaluate")
    drawn = tags(tmp_path / "run" / "tensorboard")
    curves = {"g_gan", "g_l1", "d_real", "d_fake", "chroma_ratio", "g_perceptual", "rate", "gan_weight", "images_s"}
    assert set(drawn) == curves | {"gray, ours, truth"}
    assert max(drawn["g_l1"]) == max(drawn["gray, ours, truth"]) == 80
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "float32"


def test_the_time_left_is_the_runs_also_after_photos_were_packed(tmp_path, monkeypatch):
    """Packing 100 photos takes the line to its end; the line of the training after it does not say 0:00:00."""
    chelsea = data.chelsea()[..., ::-1]
    (tmp_path / "photos").mkdir()
    for number in range(100):
        assert cv2.imwrite(
            str(tmp_path / "photos" / f"{number:02d}.png"), chelsea[number:][:100, 2 * number :][:, :100]
        )
    phases, really = [], model.train.train

    def stopped_at_the_first_line(*arguments, progress, **options):
        def told(step):
            phases.append((step.phase, step.fraction))
            assert (step.eta_s > 0) == (step.phase != "packing")
            progress(step if step.phase == "packing" else dataclasses.replace(step, eta_s=3 * 3600 + 25 * 60 + 7.4))
            if step.phase != "packing":
                raise model.train.TrainingError("stopped here")

        return really(*arguments, progress=told, **options)

    monkeypatch.setattr(model.train, "train", stopped_at_the_first_line)
    told = train(tmp_path / "photos", "--output", tmp_path / "run", "--steps", 100)
    assert phases == [("packing", 1.0), ("l1", 0.25)]
    line = next(line for line in told.stderr.splitlines() if line.startswith("l1 "))
    assert re.search(r"^l1 +25% step 25 .* 3:25:07$", line), line


def test_a_preset_that_is_none_is_wrong_usage(photos, tmp_path):
    told = train(photos, "--output", tmp_path / "run", "--preset", "vivd")
    assert told.exit_code == 2 and "vivid" in told.stderr
    assert not (tmp_path / "run").exists()


def test_a_part_of_the_preset_can_be_switched_off(photos, tmp_path):
    told = train(photos, "--output", tmp_path / "run", "--steps", 4, "--without", "film", "--without", "gan")
    assert told.exit_code == 0, told.output
    record = json.loads((tmp_path / "run" / "config.json").read_text())["preset"]
    assert record["name"] == "tiny-without-gan-film"
    assert [phase["objective"] for phase in record["phases"]] == ["l1"] and record["sampling"]["film_share"] == 0
    told = train(photos, "--output", tmp_path / "none", "--steps", 4, "--without", "encoder")
    assert told.exit_code != 0 and "'tiny' has no encoder to go without" in told.stderr


def test_the_model_cards_warm_start(tmp_path):
    """Its own command line, two steps of it: one of the critic, one of both, from what ships."""
    card = " ".join((SOURCE / "MODEL_CARD.md").read_text(encoding="utf-8").split())
    command = re.search(r"`photochrom (train PHOTOS --preset adversarial [^`]*)`", card)[1].split()
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        assert cv2.imwrite(str(folder / f"{number}.png"), data.chelsea()[50 * number :][:180, :180, ::-1])
    options = [str(SOURCE / word) if word.endswith(".npz") else word for word in command]
    options = [{"PHOTOS": str(folder), "runs/mine": str(tmp_path / "run")}.get(word, word) for word in options]
    told = CliRunner().invoke(main, [*options, "--steps", "2"])
    assert told.exit_code == 0, told.output
    assert "steps: 2" in told.stdout
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [["1", "critic"], ["2", "adversarial"]]
    # a step changes kernels a little: these are still the ones that ship; statistics are taken anew, of three photos
    for net in ("generator", "discriminator"):
        started = weights_path(shipped()).with_name(f"{net}.npz")
        with np.load(tmp_path / "run" / f"{net}.npz") as now, np.load(started) as then:
            kernels = [name for name in now.files if now[name].ndim == 4]
            moved = [np.abs(now[name].astype(np.float32) - then[name]).mean() for name in kernels]
            size = [np.abs(then[name].astype(np.float32)).mean() for name in kernels]
        assert 0 < np.mean(moved) < 0.05 * np.mean(size), net


def test_mixed_precision_trains_and_leaves_weights_that_serve(photos, tmp_path):
    told = train(photos, "--output", tmp_path / "run", "--steps", 20, "--precision", "mixed_bfloat16")
    assert told.exit_code == 0, told.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "mixed_bfloat16"
    with np.load(tmp_path / "run" / "generator.npz") as weights:
        assert {weights[name].dtype for name in weights.files} == {np.dtype(np.float16)}
    judged = CliRunner().invoke(main, ["evaluate", str(photos), "--weights", str(tmp_path / "run"), "--count", "2"])
    assert judged.exit_code == 0, judged.output


def test_sources_are_the_folders_given_and_an_unknown_one_is_told_before_photos_are_decoded(photos, tmp_path):
    for name in ("00000", "01000"):
        shutil.copytree(photos, tmp_path / "FFHQ" / name)
    shutil.copytree(photos, tmp_path / "landscapes")
    both = [tmp_path / "FFHQ", tmp_path / "landscapes"]
    for folders, known in ((both, "FFHQ, landscapes"), (both[:1], "00000, 01000")):
        told = train(*folders, "--output", tmp_path / "none", "--steps", 1, "--hold-out", "mars")
        assert told.exit_code == 2, told.output
        assert told.stderr.endswith(f"photochrom: No photos come from 'mars'; the sources are {known}.\n")
        assert not (tmp_path / "none" / "cache").exists()
    told = train(*both, "--output", tmp_path / "run", "--steps", 2, "--hold-out", "landscapes")
    assert told.exit_code == 0, told.output
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["sources"] == {"FFHQ": 32, "landscapes": 16} and record["photos"]["learned"] == 32


def test_unfit_folders_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    told = train(tmp_path / "empty", "--output", tmp_path / "run", "--steps", 1)
    assert told.exit_code == 2 and "No JPEG" in told.stderr
    gray = tmp_path / "gray"
    gray.mkdir()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (200, 200), dtype=np.uint8)
        assert cv2.imwrite(str(gray / f"{number}.png"), cv2.blur(picture, (9, 9)))
    told = train(gray, "--output", tmp_path / "run", "--steps", 1)
    assert told.exit_code == 2 and "colour" in told.stderr, told.stderr
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    told = train(torn, "--output", tmp_path / "run", "--steps", 1)
    assert told.exit_code == 2 and "a.jpg" in told.stderr, told.stderr
    assert "Traceback" not in told.stderr
    told = train(torn / "a.jpg", "--output", tmp_path / "run", "--steps", 1)
    assert told.exit_code == 2 and "PHOTOS is a folder" in told.stderr, told.stderr


def refused(told, code: int, *words: str) -> None:
    """One line that says it, and the exit code."""
    assert told.exit_code == code, told.output
    assert isinstance(told.exception, SystemExit)
    last = told.stderr.splitlines()[-1]
    assert last.startswith("photochrom: ") and all(word in last for word in words), told.stderr


def test_what_the_system_refuses_is_one_line(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    refused(train(photos, "--output", tmp_path / "file" / "run", "--steps", 1), 7, "Not a directory", "file/run")
    cache = tmp_path / "file" / "cache"
    refused(train(photos, "--output", tmp_path / "run", "--cache", cache, "--steps", 1), 7, str(cache))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of a write: no name

    def away(*arguments, **options):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(photos / "a.png"))

    monkeypatch.setattr(model.train, "save_checkpoint", full)
    refused(train(photos, "--output", tmp_path / "run", "--steps", 4), 7, "No space left", str(tmp_path / "run"))
    monkeypatch.setattr(model.train, "pack_photos", away)
    refused(train(photos, "--output", tmp_path / "run", "--steps", 4), 1, "Stale file handle", "a.png")
