"""What one training run learns from and is judged on, frozen: small copies of the photos, and a list with a hash.

The copies make the run independent of what happens in the curated folder meanwhile, and a photo that is broken is found
here and not in the middle of training.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from model import base_set
from model.colorizer import Colorizer
from model.perceptual import as_table, mirrored_hash, nearest, perceptual_hash
from model.photos import PhotosError, decode, find_photos, shrink
from model.retraining import anchored, base_photos, distil, write_photo
from worker import curated, curation, originals
from worker.db import Database
from worker.errors import PhotochromError
from worker.learning_tables import CuratedPhoto, TrainingRun
from worker.settings import Settings
from worker.tables import Root

logger = logging.getLogger(__name__)

FORMAT: Final = 1
HOLDOUT_SHARE: Final = 0.2
#: short side of the copies that are learned from, and of those that are judged on
TRAIN_PX: Final = 224
JUDGE_PX: Final = 320
LEAST_REPLAY: Final = 200
MOST_REPLAY: Final = 2000
#: kinds of replay
BASE_SET: Final = "shipped base set"
BASE_PHOTOS: Final = "base photos"
SELF_DISTILLATION: Final = "self-distillation"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A frozen run: the folders of its copies, and the list."""

    folder: Path
    record: dict[str, Any]

    @property
    def photos(self) -> Path:
        """What is learned from: `curated/` and `replay/`."""
        return self.folder / "photos"

    @property
    def holdout(self) -> Path:
        """The curated photos that are judged on, by slice."""
        return self.folder / "holdout"

    @property
    def sha256(self) -> str:
        """Of the list as canonical JSON."""
        text = json.dumps(self.record, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def used(self, use: str) -> list[dict[str, Any]]:
        """The curated photos of one use: `train` or `holdout`."""
        return [photo for photo in self.record["curated"] if photo["use"] == use]


def freeze(
    database: Database,
    settings: Settings,
    run: TrainingRun,
    folder: Path,
    champion: Colorizer,
    alive: Callable[[float], None],
) -> Manifest:
    """Make the run's manifest, or read the one that an interrupted process has made.

    Args:
        database: the record.
        settings: base photos, evaluation photos, cap on sizes.
        run: its id is the seed.
        folder: of the run.
        champion: for self-distillation where there are no base photos.
        alive: called while it goes on, with the share that is done.

    Raises:
        OSError: no room.
        PhotosError: a folder that the settings name holds no photos.
    """
    path = folder / "manifest.json"
    if not path.exists():
        for name in ("photos", "holdout"):
            shutil.rmtree(folder / name, ignore_errors=True)
        record = _copy_all(database, settings, run, folder, champion, alive)
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    manifest = Manifest(folder, json.loads(path.read_text(encoding="utf-8")))
    _note_use(database, run, manifest)
    return manifest


def _copy_all(
    database: Database, settings: Settings, run: TrainingRun, folder: Path, champion: Colorizer,
    alive: Callable[[float], None],
) -> dict[str, Any]:  # fmt: skip
    with database.reading() as session:
        photos = list(curated.accepted(session))
        roots = {root.name: root.path for root in session.scalars(sa.select(Root))}
        session.expunge_all()
    for path in {roots[photo.root] for photo in photos}:
        if not os.path.isdir(path):  # else every photo would be left out, and the run would learn nothing new
            raise PhotosError(f"The curated folder {os.fsdecode(path)} is not there. Mount it, then start again.")
    held = hold_out(photos, settings.gate_holdout_photos)
    entries, left_out = [], {}
    for number, photo in enumerate(photos):
        alive(0.8 * number / len(photos))
        use = "holdout" if photo.id in held else "train"
        try:
            entries.append(_copy(settings, photo, roots[photo.root], folder, use))
        except (PhotochromError, PhotosError) as error:
            left_out[photo.display_path] = str(error)
            logger.warning("photo_left_out", extra={"path": photo.display_path, "why": str(error)})
    judged = [entry["perceptual_hash"] for entry in entries if entry["use"] == "holdout"]
    learned = sum(entry["use"] == "train" for entry in entries)
    if not learned:
        first = next(iter(left_out.values()), "there is none.")
        raise PhotosError(f"None of {len(photos)} curated photos can be learned from; the first: {first}")
    count = min(max(LEAST_REPLAY, learned), MOST_REPLAY)
    return {
        "format": FORMAT,
        "seed": run.id,
        "parent": {"version": champion.version.name, "weights_sha256": champion.version.weights_sha256},
        "curated": entries,
        "left_out": left_out,
        "replay": _replay(settings, folder / "photos" / "replay", champion, run.id, count, judged, alive),
        "evaluation": _evaluation(settings),
    }


def hold_out(photos: Sequence[CuratedPhoto], least: int) -> set[int]:
    """Ids of the photos that are judged on and never learned from.

    A fifth of all, at least `least` but never more than half. What once was learned from or held out stays so; the new
    ones are chosen by the sha256 of their content, so that every run agrees.
    """
    wanted = min(max(least, round(HOLDOUT_SHARE * len(photos))), len(photos) // 2)
    held = [photo.id for photo in photos if photo.use == "holdout"]
    fresh = sorted((photo for photo in photos if not photo.use), key=lambda photo: _lot(photo.sha256))
    return {*held, *(photo.id for photo in fresh[: max(0, wanted - len(held))])}


def _lot(sha256: str) -> str:
    return hashlib.sha256(f"hold-out {sha256}".encode()).hexdigest()


def _copy(settings: Settings, photo: CuratedPhoto, root: bytes, folder: Path, use: str) -> dict[str, Any]:
    """A small copy of a curated photo in the run's folder, and its entry."""
    with originals.open_original(root, photo.path) as fd, os.fdopen(os.dup(fd), "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise PhotosError("its content is no longer the one that was accepted")
    rgb = curation.decode_photo(data, settings.max_megapixels)
    hashed = perceptual_hash(rgb)
    # the operator's set may have been named, or have grown, since the photo was accepted
    if (near := curation.nearest_evaluation(settings.evaluation_photos, hashed, mirrored_hash(rgb))) is not None:
        raise PhotosError(f"{curated.EVALUATION}: {near[0]}")
    small = shrink(rgb, JUDGE_PX if use == "holdout" else TRAIN_PX)
    slice_ = "".join(c if c.isalnum() or c in "-_" else "-" for c in photo.slice)[:40] or "photos"
    below = f"holdout/{slice_}" if use == "holdout" else f"photos/curated/{slice_}"
    name = f"{below}/{photo.id:08d}_{photo.sha256[:12]}.png"
    write_photo(folder / name, small)
    return {"id": photo.id, "sha256": photo.sha256, "slice": photo.slice, "use": use, "file": name,
            "licence": photo.licence, "perceptual_hash": hashed}  # fmt: skip


def _replay(
    settings: Settings, folder: Path, champion: Colorizer, seed: int, count: int, judged: Sequence[str],
    alive: Callable[[float], None],
) -> dict[str, Any]:  # fmt: skip
    """Fill `replay/`: base photos where the operator has some, else the champion's own outputs on the gray set."""
    kept: list[dict[str, str]] = []
    held_back = 0
    if settings.base_photos:
        kept, held_back = _base(settings, folder, champion, seed, count, judged, alive)
    if not kept:
        photos = distil(champion, folder, count, seed, TRAIN_PX)
        return {"kind": SELF_DISTILLATION, "folder": settings.base_photos, "photos": photos, "held_back": held_back}
    matched = sum(bool(photo["base_set"]) for photo in kept)
    kind = BASE_SET if matched == len(kept) else BASE_PHOTOS
    return {"kind": kind, "folder": settings.base_photos, "photos": kept, "matched": matched, "held_back": held_back}


def _base(
    settings: Settings, folder: Path, champion: Colorizer, seed: int, count: int, judged: Sequence[str],
    alive: Callable[[float], None],
) -> tuple[list[dict[str, str]], int]:  # fmt: skip
    """Copies of photos from `base_photos`, and how many of the base set's own hold-out were passed over."""
    _, table = curation.evaluation_hashes(settings.evaluation_photos)
    kept_out = as_table([row.tobytes().hex() for row in table] + list(judged))
    kept: list[dict[str, str]] = []
    held_back = 0
    for photo in base_photos(Path(settings.base_photos), seed):
        alive(0.8 + 0.2 * len(kept) / count)
        if len(kept) == count:
            break
        known = base_set.find(photo)
        if known is not None and known.held_out:
            held_back += 1
            continue
        try:
            rgb = decode(photo)
        except PhotosError:
            continue
        hashed = perceptual_hash(rgb)
        # also of photos of the base set: the gate would refuse what learned from a copy of what it judges by
        if nearest(kept_out, hashed, mirrored_hash(rgb)) is None:
            write_photo(folder / f"base_{len(kept):05d}.png", anchored(shrink(rgb, TRAIN_PX), champion))
            kept.append({"name": photo.name, "perceptual_hash": hashed, "base_set": known.source if known else ""})
    return kept, held_back


def replay_in_words(replay: dict[str, Any]) -> str:
    """Which replay a run used, from its manifest."""
    kind, matched = str(replay["kind"]), replay.get("matched", 0)
    words = f"{kind}, {matched} of them of the {BASE_SET}" if kind == BASE_PHOTOS and matched else kind
    if kind == SELF_DISTILLATION and replay.get("folder"):
        words += ", because no usable photo was found in base_photos"
    held_back = replay.get("held_back", 0)
    return words + (f"; {held_back} of the base set's hold-out passed over" if held_back else "")


def _evaluation(settings: Settings) -> dict[str, Any]:
    if not settings.evaluation_photos:
        return {"folder": "", "photos": 0}
    return {"folder": settings.evaluation_photos, "photos": len(find_photos([Path(settings.evaluation_photos)]))}


def _note_use(database: Database, run: TrainingRun, manifest: Manifest) -> None:
    """Record what was used for what: it stays so in every later run.

    A photo that was left out is no new one any more either, or a schedule would start run after run for its sake.
    """
    for paths in _lots(list(manifest.record["left_out"])):
        with database.writing() as session:
            gone = CuratedPhoto.display_path.in_(paths), CuratedPhoto.first_run.is_(None)
            session.execute(sa.update(CuratedPhoto).where(*gone).values(first_run=run.id))
    for use in ("train", "holdout"):
        for ids in _lots([photo["id"] for photo in manifest.used(use)]):
            with database.writing() as session:
                some = CuratedPhoto.id.in_(ids)
                session.execute(sa.update(CuratedPhoto).where(some).values(use=use))
                session.execute(
                    sa.update(CuratedPhoto).where(some, CuratedPhoto.first_run.is_(None)).values(first_run=run.id)
                )


def _lots(values: list[Any]) -> Iterator[list[Any]]:
    """Few enough for one statement."""
    return (values[first : first + 500] for first in range(0, len(values), 500))


def leaks(manifest: Manifest, evaluation_photos: str) -> list[str]:
    """Photos of the gate that are, in some form, among those learned from."""
    learned = manifest.used("train")
    replayed = [p for p in manifest.record["replay"]["photos"] if isinstance(p, dict)]
    table = as_table([p["perceptual_hash"] for p in (*learned, *replayed)])
    found = []
    folders = [manifest.holdout] if manifest.holdout.is_dir() else []
    folders += [Path(evaluation_photos)] if evaluation_photos else []
    for photo in find_photos(folders) if folders else []:
        try:
            rgb = decode(photo)
        except PhotosError:
            continue
        if nearest(table, perceptual_hash(rgb), mirrored_hash(rgb)) is not None:
            found.append(photo.name)
    return found
