"""The record of curated photos: the watcher adds them, a worker checks each once, a person has the last word."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import leases
from worker.db import after
from worker.errors import CuratedRefused
from worker.learning_tables import CuratedPhoto, CuratedState
from worker.tables import Root, RootState, SourceFile

LEASE_S: Final = 60.0
#: a check that ended with its worker so often is not tried again
MOST_LOST: Final = 3
#: how a reason begins that no operator may overrule
EVALUATION: Final = "neighbour of an evaluation picture"
#: how the reason of a photo begins whose colours are a model's, such as a derivative of ours
GENERATED: Final = "coloured by a model"
#: how the reason of a photo begins that could not be opened; it is checked again when its file settles again
UNREADABLE: Final = "not readable"
PAGE: Final = 500


def submit(session: Session, file: SourceFile, sha256: str) -> bool:
    """Record a settled file's present content for its check; the same content again is a no-op.

    Args:
        session: a writing session.
        file: the file's row.
        sha256: of its bytes.

    Returns:
        Whether it has to be checked.
    """
    known = session.scalars(sa.select(CuratedPhoto).where(CuratedPhoto.source_file_id == file.id)).one_or_none()
    if known is not None and known.sha256 == sha256 and not known.reason.startswith(UNREADABLE):
        return False
    if known is None:
        known = CuratedPhoto(source_file_id=file.id, root=file.root, path=file.path, display_path=file.display_path,
                             claim_no=0)  # fmt: skip
        session.add(known)
    known.sha256, known.size_bytes = sha256, file.size_bytes
    known.state, known.reason, known.judged_by, known.judged_at = CuratedState.PENDING, "Waits for its check.", "", None
    known.use, known.first_run, known.duplicate_of, known.lost, known.lease_until = "", None, None, 0, None
    known.perceptual_hash, known.claim_no = None, known.claim_no + 1
    return True


def _free() -> sa.ColumnElement[bool]:
    """Pending, in nobody's hands, and not on a share that is away: nothing is concluded from its absence there."""
    unleased = sa.or_(CuratedPhoto.lease_until.is_(None), leases.is_void(CuratedPhoto.lease_until, 2 * LEASE_S))
    there = CuratedPhoto.root.not_in(sa.select(Root.name).where(Root.state == RootState.OFFLINE))
    return sa.and_(CuratedPhoto.state == CuratedState.PENDING, unleased, there)


def waiting(session: Session) -> int:
    """How many photos wait for their check and are in no worker's hands."""
    return session.scalar(sa.select(sa.func.count()).select_from(CuratedPhoto).where(_free())) or 0


def claim(session: Session, lease_s: float = LEASE_S) -> CuratedPhoto | None:
    """Take the next photo to check, for at most LEASE_S seconds; None when there is none.

    One whose check has ended with its worker too often is rejected on the way.
    """
    while True:
        found = session.scalars(sa.select(CuratedPhoto.id).where(_free()).order_by(CuratedPhoto.id).limit(1)).first()
        if found is None:
            return None
        claimed = session.scalars(
            sa.update(CuratedPhoto)
            .where(CuratedPhoto.id == found, _free())
            .values(claim_no=CuratedPhoto.claim_no + 1, lost=CuratedPhoto.lost + 1, lease_until=after(lease_s))
            .returning(CuratedPhoto),
            execution_options={"populate_existing": True},
        ).one_or_none()
        if claimed is None:
            continue  # another worker was faster
        if claimed.lost <= MOST_LOST:
            return claimed
        settle(session, claimed, CuratedState.REJECTED, f"its check ended the worker {MOST_LOST} times")


def settle(session: Session, photo: CuratedPhoto, state: CuratedState, reason: str, **facts: Any) -> bool:
    """End a claimed check; False when the claim is void (the photo was replaced, or the check took too long)."""
    return _end(session, photo, state=state, reason=reason, judged_by="check", judged_at=after(0), lease_until=None,
                lost=0, **facts)  # fmt: skip


def put_off(session: Session, photo: CuratedPhoto, reason: str) -> bool:
    """Let a claimed photo that cannot be read now wait for as long as a lease lasts, without a strike."""
    return _end(session, photo, reason=reason, lost=CuratedPhoto.lost - 1, lease_until=after(LEASE_S))


def _end(session: Session, photo: CuratedPhoto, **values: Any) -> bool:
    ended = session.execute(
        sa.update(CuratedPhoto)
        .where(
            CuratedPhoto.id == photo.id, CuratedPhoto.claim_no == photo.claim_no,
            CuratedPhoto.state == CuratedState.PENDING,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return bool(ended.rowcount == 1)  # type: ignore[attr-defined]


def overrule(session: Session, photo_id: int, state: CuratedState, reason: str, actor: str) -> CuratedPhoto:
    """A person's decision about a photo.

    Raises:
        CuratedRefused: there is no such photo, it could not be decoded, or it would spoil the evaluation.
    """
    photo = session.get(CuratedPhoto, photo_id)
    if photo is None:
        raise CuratedRefused(f"There is no curated photo {photo_id}; `photochrom curated list` shows them.")
    if state is CuratedState.ACCEPTED and photo.perceptual_hash is None:
        raise CuratedRefused(f"Photo {photo_id} ({photo.display_path}) has not been read: {photo.reason}")
    if state is CuratedState.ACCEPTED and photo.reason.startswith(EVALUATION):
        raise CuratedRefused(
            f"Photo {photo_id} is a {photo.reason}; learning from it would make every later verdict worthless."
        )
    photo.state, photo.reason, photo.judged_by = state, reason, actor
    photo.claim_no += 1
    session.execute(sa.update(CuratedPhoto).where(CuratedPhoto.id == photo_id).values(judged_at=after(0)))
    return photo


def accepted(session: Session) -> Iterator[CuratedPhoto]:
    """All accepted photos by id, page by page."""
    last = 0
    while True:
        page = session.scalars(
            sa.select(CuratedPhoto)
            .where(CuratedPhoto.state == CuratedState.ACCEPTED, CuratedPhoto.id > last)
            .order_by(CuratedPhoto.id)
            .limit(PAGE)
        ).all()
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1].id


def hashes(session: Session, but: int) -> list[tuple[int, str]]:
    """(id, perceptual hash) of the accepted photos, one left out."""
    rows = session.execute(
        sa.select(CuratedPhoto.id, CuratedPhoto.perceptual_hash).where(
            CuratedPhoto.state == CuratedState.ACCEPTED,
            CuratedPhoto.id != but,
            CuratedPhoto.perceptual_hash.is_not(None),
        )
    )
    return [(photo_id, str(value)) for photo_id, value in rows]


def same_bytes(session: Session, photo: CuratedPhoto) -> CuratedPhoto | None:
    """An accepted photo with the same bytes, if any."""
    return session.scalars(
        sa.select(CuratedPhoto)
        .where(
            CuratedPhoto.sha256 == photo.sha256,
            CuratedPhoto.id != photo.id,
            CuratedPhoto.state == CuratedState.ACCEPTED,
        )
        .limit(1)
    ).first()


def by_file(session: Session, file_id: int) -> CuratedPhoto | None:
    """The photo of a file's row."""
    return session.scalars(sa.select(CuratedPhoto).where(CuratedPhoto.source_file_id == file_id)).one_or_none()


def counts(session: Session) -> dict[str, int]:
    """Photos per state."""
    rows = session.execute(sa.select(CuratedPhoto.state, sa.func.count()).group_by(CuratedPhoto.state))
    return {str(state): count for state, count in rows}


def new_photos(session: Session) -> int:
    """Accepted photos that no training run has used yet."""
    return (
        session.scalar(
            sa.select(sa.func.count())
            .select_from(CuratedPhoto)
            .where(CuratedPhoto.state == CuratedState.ACCEPTED, CuratedPhoto.first_run.is_(None))
        )
        or 0
    )


def rejections(session: Session) -> Sequence[tuple[str, int]]:
    """(reason up to its colon, how many), the commonest first."""
    rows = session.execute(
        sa.select(CuratedPhoto.reason, sa.func.count())
        .where(CuratedPhoto.state == CuratedState.REJECTED)
        .group_by(CuratedPhoto.reason)
    )
    kinds: dict[str, int] = {}
    for reason, count in rows:
        kind = reason.split(":")[0]
        kinds[kind] = kinds.get(kind, 0) + count
    return sorted(kinds.items(), key=lambda item: -item[1])
