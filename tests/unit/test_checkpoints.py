"""Checkpoints: what a torn one and one of another run are told as, and what is on the disk before the next step."""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest

from model.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from model.config import PRESETS, Sampling
from model.resume import photos_digest, recipe_record, refuse_another

ARRAYS = {"generator0": np.arange(5000, dtype=np.float32), "adam1": np.ones((3, 2), np.float32)}


def test_the_newest_checkpoint_comes_back_and_the_one_before_is_gone(tmp_path):
    assert load_checkpoint(tmp_path / "absent") is None
    save_checkpoint(tmp_path, {"w": np.zeros(3)}, {"step": 1})
    save_checkpoint(tmp_path, ARRAYS, {"step": 20, "seed": 7})
    arrays, record = load_checkpoint(tmp_path)
    assert record == {"step": 20, "seed": 7}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_0000020.npz"]


def test_what_is_named_is_on_the_disk_before_the_pointer_and_the_pointer_before_the_old_goes(tmp_path, monkeypatch):
    """Each fsync, in order: of what, and what stood in the folder then."""
    save_checkpoint(tmp_path, ARRAYS, {"step": 1})
    synced, fsync = [], os.fsync

    def seen(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        name = "folder" if inode == tmp_path.stat().st_ino else next(
            path.name for path in tmp_path.iterdir() if path.stat().st_ino == inode
        )  # fmt: skip
        standing = {path.name for path in tmp_path.glob("step_*.npz")}
        synced.append((name, (tmp_path / "LATEST").read_text(), len(standing)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    save_checkpoint(tmp_path, ARRAYS, {"step": 2})
    one, two = "step_0000001.npz", "step_0000002.npz"
    assert synced == [(f"{two}.partial", one, 1), ("folder", one, 2), ("LATEST.partial", one, 2), ("folder", two, 2)]
    assert load_checkpoint(tmp_path)[1] == {"step": 2}


def shortened(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "tear", [shortened, flipped, lambda path: path.write_bytes(b""), lambda path: path.unlink(),
             lambda path: path.with_name("LATEST").write_bytes(b""), lambda path: path.write_bytes(b"PK not a zip")],
    ids=["shortened", "a bit flipped", "empty", "gone", "empty pointer", "other bytes"],
)  # fmt: skip
def test_a_torn_checkpoint_is_told_with_what_to_do(tmp_path, tear):
    save_checkpoint(tmp_path, ARRAYS, {"step": 3})
    tear(tmp_path / "step_0000003.npz")
    with pytest.raises(CheckpointError, match=r"LATEST names cannot be read .*--fresh"):
        load_checkpoint(tmp_path)


RECIPE = PRESETS["default"]


def record(preset=RECIPE, photos="0123", **more) -> dict:
    return {"preset": preset.name, "seed": 1, "recipe": recipe_record(preset), "photos": photos} | more


def with_phase(number: int, **changes):
    phases = list(RECIPE.phases)
    phases[number] = dataclasses.replace(phases[number], **changes)
    return dataclasses.replace(RECIPE, phases=tuple(phases))


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        (record(), record(seed=2), r"preset 'default' with seed 1"),
        (record(), record(PRESETS["vivid"]), r"preset 'default' with seed 1"),
        (record(), record(photos="4567"), r"other photos \(digest 0123 there, 4567 here\)"),
        (record(), record(with_phase(1, rate=1e-3)), r"phases\[2\]\.rate is 0\.0006 there and 0\.001 here"),
        (record(), record(dataclasses.replace(RECIPE, l1_weight=10.0)), r"l1_weight is 100\.0 there and 10\.0 here"),
        (record(), record(dataclasses.replace(RECIPE, sampling=Sampling(film_share=0.0))), r"sampling\.film_share"),
        (record(), record(dataclasses.replace(RECIPE, phases=RECIPE.phases[:-1])), r"phases is 5 entries there and 4"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_both_are_named(there, here, told):
    refuse_another(there, there, ARRAYS, ARRAYS)
    with pytest.raises(CheckpointError, match=told):
        refuse_another(there, here, ARRAYS, ARRAYS)


def test_a_budget_less_memory_or_another_release_is_no_other_run():
    smaller = dataclasses.replace(with_phase(2, size_px=96), batch=8, minutes=5.0)
    refuse_another(record(), record(smaller), ARRAYS, ARRAYS)
    refuse_another({"preset": "default", "seed": 1}, record(), ARRAYS, ARRAYS)  # before recipe and photos were kept
    older = record()
    del older["recipe"]["phases"][0]["perceptual_weight"], older["recipe"]["sampling"]["film_share"]
    older["recipe"]["sampling"]["gone_since"] = 3
    refuse_another(older, record(), ARRAYS, ARRAYS)
    refuse_another(record(), record(), ARRAYS | {"loss_scale0": np.ones(())}, ARRAYS)


@pytest.mark.parametrize(
    "arrays",
    [
        {"generator0": ARRAYS["generator0"]},
        ARRAYS | {"adam1": np.ones((2, 3), np.float32)},
        ARRAYS | {"adam2": np.ones(1, np.float32)},
    ],
)
def test_arrays_of_another_architecture_are_refused(arrays):
    with pytest.raises(CheckpointError, match=r"another architecture \(array adam"):
        refuse_another({"preset": "default", "seed": 1}, record(), arrays, ARRAYS)


def test_photos_are_known_by_name_size_and_colour():
    def pack(names=("a", "b", "c"), height=60, share=0.5):
        histograms = np.full((3, 4), share, np.float32)
        return SimpleNamespace(names=list(names), sizes=np.full((3, 2), height), histograms=histograms)

    every = np.arange(3)
    known = photos_digest(pack(), every)
    assert known == photos_digest(pack(), every) and len(known) == 16
    others = [photos_digest(pack(), every[:2]), photos_digest(pack(("a", "b", "d")), every),
              photos_digest(pack(height=61), every), photos_digest(pack(share=0.25), every)]  # fmt: skip
    assert len({known, *others}) == 5
