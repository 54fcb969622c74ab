"""Which packed photos are learned from and which are held out, to calibrate and to choose by."""

import hashlib
from collections.abc import Sequence

import numpy as np

from model.pack import Pack
from model.photos import PhotosError


def split_holdout(pack: Pack, count: int, sources: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the photos to train on and of a hold-out of at most `count`, at most a fifth of all.

    Which photos are held out depends only on the sha256 of their names, so every run on the same photos agrees; every
    source gives a share that grows with the square root of its size. With `sources` those are held out whole instead,
    and the hold-out is all of them: what a net scores on sources that it never saw is nearer to what it will do.

    Raises:
        PhotosError: a source is not among the photos, or nothing is left to train on.
    """
    if sources:
        return _split_by_source(pack, sources)
    count = min(count, len(pack) // 5)
    roots = np.sqrt(np.bincount(pack.sources, minlength=len(pack.source_names)))
    quotas = np.floor(roots / roots.sum() * count).astype(int)
    held: list[int] = []
    for source, quota in enumerate(quotas):
        members = np.flatnonzero(pack.sources == source)
        held += sorted(members.tolist(), key=lambda i: _fingerprint(pack.names[i]))[:quota]
    mask = np.zeros(len(pack), bool)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _split_by_source(pack: Pack, sources: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    unknown = sorted(set(sources) - set(pack.source_names))
    if unknown:
        raise PhotosError(f"No photos come from '{unknown[0]}'; the sources are {', '.join(pack.source_names)}.")
    mask = np.isin(pack.sources, [pack.source_names.index(source) for source in sources])
    if mask.all():
        raise PhotosError("Every photo would be held out; leave at least one source to train on.")
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
