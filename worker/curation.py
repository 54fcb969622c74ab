"""The check of a curated photo: read it once, look at its pixels, compare it with all others."""

import csv
import functools
import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
import numpy as np
import pyvips

from model.perceptual import as_table, mirrored_hash, nearest, perceptual_hash
from model.photo_checks import photo_facts
from model.photos import PhotosError, decode, find_photos
from worker import curated, originals
from worker.answers import PATIENCE_S, NoAnswer, ask
from worker.db import Database
from worker.errors import ScanUnreadable, ScanUnsupported, ScanVanished
from worker.identity import is_recorded_here, shares_of
from worker.learning_tables import CuratedPhoto, CuratedState
from worker.mounts import share_away
from worker.settings import Settings
from worker.tables import Root, absolute, display

logger = logging.getLogger(__name__)

#: a worker checks for so long and then looks at its queue again
TURN_S: Final = 5.0
MOST_BYTES: Final = 512 << 20
#: hashes of the pictures behind the figures in MODEL_CARD.md
SHIPPED_HASHES: Final = Path(__file__).resolve().parent.parent / "model" / "evaluation_hashes.txt"
MANIFEST: Final = "manifest.csv"
#: IPTC's terms for pictures that a trained model has made or changed, and the field that names it
MARKS: Final = re.compile(rb"trainedAlgorithmicMedia|digitalsourcetype/algorithmicMedia|AISystemUsed", re.IGNORECASE)

Answer = TypeVar("Answer")


def check_waiting(database: Database, settings: Settings) -> int:
    """Check photos that wait, for one turn; returns how many. What cannot be read at the moment is put off."""
    began_s, count = time.monotonic(), 0
    while time.monotonic() - began_s < TURN_S:
        with database.writing() as session:
            photo = curated.claim(session)
            root = session.get(Root, photo.root) if photo else None
            base = root.path if root else b""
        if photo is None:
            break
        try:
            state, reason, facts = judge(database, settings, photo, base)
        except (ScanUnreadable, OSError) as error:
            with database.writing() as session:
                curated.put_off(session, photo, f"Waits: {error}")
            logger.warning("curated_put_off", extra={"path": photo.display_path, "why": str(error)})
            continue
        with database.writing() as session:
            curated.settle(session, photo, state, reason, **facts)
        logger.info("curated", extra={"path": photo.display_path, "state": state, "reason": reason})
        count += 1
    return count


def judge(
    database: Database, settings: Settings, photo: CuratedPhoto, root: bytes
) -> tuple[CuratedState, str, dict[str, Any]]:
    """State, reason and facts of a photo; nothing is written.

    Raises:
        ScanUnreadable: a folder that it takes is away or does not answer; nothing is said about the photo.
        OSError: so says the system of one of them.
    """
    facts: dict[str, Any] = _ask(root, partial(said_of, Path(os.fsdecode(root)), photo))
    try:
        data = _taken(database, root, photo)
        rgb = decode_photo(data, settings.max_megapixels)
    except (ScanVanished, ScanUnsupported) as error:
        return CuratedState.REJECTED, f"{curated.UNREADABLE}: {error}", facts
    except PhotosError as error:
        return CuratedState.REJECTED, f"broken: {error}", facts
    found = photo_facts(rgb, settings.curated_least_px)
    hashed = perceptual_hash(rgb)
    facts |= {
        "width_px": found.width_px, "height_px": found.height_px, "colourfulness": round(found.colourfulness, 2),
        "perceptual_hash": hashed,
    }  # fmt: skip
    if found.fault:
        return CuratedState.REJECTED, found.fault, facts
    if made_by_a_model(data):
        return CuratedState.REJECTED, f"{curated.GENERATED}: its own metadata say so (XMP)", facts
    both = (hashed, mirrored_hash(rgb))
    if (near := _evaluation_neighbour(settings.evaluation_photos, *both)) is not None:
        return CuratedState.REJECTED, f"{curated.EVALUATION}: {near[0]} ({near[1]} of 255 bits differ)", facts
    with database.reading() as session:
        same, others = curated.same_bytes(session, photo), curated.hashes(session, but=photo.id)
    if same is not None:
        return CuratedState.REJECTED, f"duplicate: the same bytes as photo {same.id}", facts | {"duplicate_of": same.id}
    hit = nearest(as_table([value for _, value in others]), *both)
    if hit is not None:
        other = others[hit[0]][0]
        reason = f"near-duplicate: photo {other} resized, recompressed or mirrored ({hit[1]} of 255 bits differ)"
        return CuratedState.REJECTED, reason, facts | {"duplicate_of": other}
    return CuratedState.ACCEPTED, "fit to be learned from", facts


def _ask(folder: bytes, question: Callable[[], Answer], patience_s: float = PATIENCE_S, what: str = "") -> Answer:
    """`ask`, in the words of a reason."""
    try:
        return ask(folder, question, patience_s, what=what)
    except NoAnswer as error:
        raise ScanUnreadable(
            f"{display(folder)} does not answer (for {error.for_s:.0f} s): its server, its disk or the network is "
            "down. It goes on by itself."
        ) from error


def _taken(database: Database, root: bytes, photo: CuratedPhoto) -> bytes:
    """The photo's bytes. That it is gone means nothing where its folder, or a share below that, is away."""
    folder = os.path.dirname(absolute(root, photo.path))
    _ask(folder, partial(os.path.exists, folder))  # in short: reading may take its time
    try:
        return _ask(folder, partial(_read, root, photo), curated.LEASE_S, "photo")
    except ScanVanished as error:
        with database.reading() as session:
            known, shares = session.get(Root, photo.root), shares_of(session, photo.root)
        if known is not None and _ask(root, partial(_is_away, database, known, photo.path, shares)):
            raise ScanUnreadable(f"{display(folder)} is not mounted. Mount it; it goes on by itself.") from error
        raise


def _is_away(database: Database, root: Root, path: bytes, shares: set[bytes]) -> bool:
    return share_away(root.path, path, shares) is not None or not is_recorded_here(database, root)


def _evaluation_neighbour(folder: str, *hashes: str) -> tuple[str, int] | None:
    if not folder:
        return nearest_evaluation(folder, *hashes)
    try:
        return _ask(os.fsencode(folder), partial(nearest_evaluation, folder, *hashes), curated.LEASE_S, "evaluation")
    except PhotosError as error:
        raise ScanUnreadable(str(error)) from error


def _read(root: bytes, photo: CuratedPhoto) -> bytes:
    """The photo's bytes, if they are still those that were hashed."""
    with originals.open_original(root, photo.path) as fd:
        if os.fstat(fd).st_size > MOST_BYTES:
            raise ScanUnsupported(f"the file has more than {MOST_BYTES >> 20} MiB; make it smaller.")
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read()
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise ScanVanished("its content changed before it was checked; the watcher takes the new one.")
    return data


def decode_photo(data: bytes, max_megapixels: float) -> np.ndarray:
    """RGB uint8 `[H, W, 3]` of an encoded photo, upright.

    Raises:
        PhotosError: it is none, it is broken, or it is larger than allowed.
    """
    try:
        header = pyvips.Image.new_from_buffer(data, "")
    except pyvips.Error as error:
        raise PhotosError("it is no picture that can be read") from error
    if header.width * header.height > max_megapixels * 1e6:
        raise PhotosError(f"it has {header.width}x{header.height} px, more than max_megapixels allows")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PhotosError(f"it cannot be decoded ({error.err})") from error
    if bgr is None:
        raise PhotosError("it cannot be decoded")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def made_by_a_model(data: bytes) -> bool:
    """Whether a picture's XMP says that a model made it or its colours, as that of our derivatives does.

    A net that learns from its own colours is confirmed in whatever it does already.
    """
    try:
        header = pyvips.Image.new_from_buffer(data, "")
    except pyvips.Error:
        return False
    return "xmp-data" in header.get_fields() and MARKS.search(header.get("xmp-data")) is not None


def said_of(root: Path, photo: CuratedPhoto) -> dict[str, Any]:
    """Slice, licence and origin: from `manifest.csv` (file, category, licence, origin), else the folder's name."""
    path = os.fsdecode(photo.path)
    row = _manifest(root / MANIFEST, _mtime_ns(root / MANIFEST)).get(path, {})
    folder = path.split("/")[0] if "/" in path else ""
    return {
        "slice": row.get("category") or row.get("slice") or folder or "photos",
        "licence": row.get("licence") or row.get("license") or "",
        "origin": row.get("origin") or row.get("source") or "",
    }


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=2)
def _manifest(path: Path, mtime_ns: int) -> dict[str, dict[str, str]]:
    """The rows of a manifest by file; `mtime_ns` makes a changed one be read anew. A broken one counts as none."""
    if not mtime_ns:
        return {}
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        return {row["file"]: {k: v for k, v in row.items() if k and isinstance(v, str)} for row in reader}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        logger.warning("manifest_unreadable", extra={"path": str(path), "why": str(error)})
        return {}


def nearest_evaluation(folder: str, *hashes: str) -> tuple[str, int] | None:
    """The evaluation picture that a photo shows too: its name and the distance in bits; None when there is none."""
    names, table = evaluation_hashes(folder)
    hit = nearest(table, *hashes)
    return None if hit is None else (names[hit[0]], hit[1])


def evaluation_hashes(folder: str) -> tuple[list[str], np.ndarray]:
    """Names and hashes of the product's own evaluation pictures and of the operator's."""
    stamp = 0
    if folder:
        stamp = hash(tuple((str(p.path), _mtime_ns(p.path)) for p in find_photos([Path(folder)])))
    return _evaluation_hashes(folder, stamp)


@functools.lru_cache(maxsize=2)
def _evaluation_hashes(folder: str, _stamp: int) -> tuple[list[str], np.ndarray]:
    pairs = [line.split() for line in SHIPPED_HASHES.read_text().splitlines() if line and line[0] != "#"]
    named = [(name, value) for value, name in pairs]
    for photo in find_photos([Path(folder)]) if folder else []:
        try:
            named.append((photo.name, perceptual_hash(decode(photo))))
        except PhotosError as error:
            logger.warning("evaluation_photo_unreadable", extra={"photo": photo.name, "why": str(error)})
    return [name for name, _ in named], as_table([value for _, value in named])
