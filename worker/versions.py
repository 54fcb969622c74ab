"""The record of the generator's versions: which there are, which one serves, and every flip of that with its reason."""

import getpass
import socket
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.db import after
from worker.errors import VersionRefused
from worker.learning_tables import CHAMPION, ModelAlias, ModelEvent, ModelVersion, VersionState
from worker.tables import Job


def champion(session: Session) -> str | None:
    """The version that colours new scans; None while nobody chose one, and the shipped version does."""
    return session.scalar(sa.select(ModelAlias.version).where(ModelAlias.alias == CHAMPION))


def aliases(session: Session) -> set[str]:
    """The names that stand for a version: `champion`, whether or not somebody chose one, and what else was given."""
    return {CHAMPION, *session.scalars(sa.select(ModelAlias.alias))}


def resolve(session: Session, name: str) -> str | None:
    """The version that a name stands for at this moment.

    Args:
        session: any session.
        name: a version, an alias, or "" for the champion.

    Returns:
        None for the champion while nobody chose one: whoever works on the job knows the shipped version.
    """
    found = session.scalar(sa.select(ModelAlias.version).where(ModelAlias.alias == (name or CHAMPION)))
    return found or (None if name in {"", CHAMPION} else name)


def record(
    session: Session,
    version: str,
    *,
    directory: str,
    weights_sha256: str,
    state: VersionState,
    parent: str | None = None,
) -> ModelVersion:
    """Note a version that lies on disk; one that is noted already stays as it is.

    Raises:
        VersionRefused: there is one of that name with other weights.
    """
    known = session.get(ModelVersion, version)
    if known is None:
        known = ModelVersion(
            version=version, directory=directory, weights_sha256=weights_sha256, state=state, parent=parent
        )
        session.add(known)
        session.flush()
    if known.weights_sha256 != weights_sha256:
        raise VersionRefused(
            f"Version {version} is recorded with other weights ({known.weights_sha256[:12]}…, not "
            f"{weights_sha256[:12]}…). Restore its folder; a version is never changed."
        )
    return known


def promote(session: Session, version: str, *, shipped: str, actor: str, reason: str, action: str = "promote") -> str:
    """Make a recorded version the champion: alias and audit row in the caller's one transaction.

    Args:
        session: a writing session.
        version: its name.
        shipped: the version that serves while there is no alias.
        actor: who did it.
        reason: why, for whoever reads the audit.
        action: `promote` or `rollback`.

    Returns:
        The champion before.

    Raises:
        VersionRefused: it is not recorded, or is the champion already.
    """
    row = session.get(ModelVersion, version)
    if row is None:
        raise VersionRefused(f"There is no version '{version}'. `photochrom models list` names them all.")
    alias = session.get(ModelAlias, CHAMPION, with_for_update=True)
    previous = alias.version if alias else shipped
    if previous == version:
        raise VersionRefused(f"Version {version} is the champion already; nothing was changed.")
    if alias is None:
        session.add(ModelAlias(alias=CHAMPION, version=version))
    else:
        session.execute(
            sa.update(ModelAlias).where(ModelAlias.alias == CHAMPION).values(version=version, since=after(0))
        )
    row.state = VersionState.PROMOTED
    session.add(
        ModelEvent(alias=CHAMPION, action=action, version=version, previous=previous, actor=actor, reason=reason)
    )
    return previous


def before(session: Session, version: str) -> str | None:
    """The champion before `version` was promoted; rollbacks lead back through all promotions, each undone once.

    None when `version` is the first champion, or none at all.
    """
    path: list[str] = []
    for event in session.scalars(sa.select(ModelEvent).where(ModelEvent.alias == CHAMPION).order_by(ModelEvent.id)):
        if not path and event.previous:
            path.append(event.previous)
        if event.action == "promote":
            path.append(event.version)
        elif event.version in path:
            while path[-1] != event.version:
                path.pop()
    return path[-2] if len(path) > 1 and path[-1] == version else None


def earlier(session: Session) -> list[str]:
    """Former champions, the last first, each once."""
    rows = session.scalars(
        sa.select(ModelEvent.previous).where(ModelEvent.alias == CHAMPION).order_by(ModelEvent.id.desc()).limit(100)
    )
    return list(dict.fromkeys(name for name in rows if name))


def events(session: Session, version: str | None = None) -> Sequence[ModelEvent]:
    """The audit, oldest first; only a version's own where one is named."""
    query = sa.select(ModelEvent).order_by(ModelEvent.id)
    if version is not None:
        query = query.where(sa.or_(ModelEvent.version == version, ModelEvent.previous == version))
    return session.scalars(query).all()


def all_versions(session: Session) -> Sequence[ModelVersion]:
    """Every recorded version, oldest first."""
    return session.scalars(sa.select(ModelVersion).order_by(ModelVersion.created_at, ModelVersion.version)).all()


def derivatives(session: Session) -> dict[str, int]:
    """How many jobs name each version: those are kept, whatever happens."""
    rows = session.execute(
        sa.select(Job.model_version, sa.func.count()).where(Job.model_version.is_not(None)).group_by(Job.model_version)
    )
    return {str(name): count for name, count in rows}


def note_problem(session: Session, version: str, problem: str) -> None:
    """Record why a version does not load, or with "" that it does."""
    session.execute(
        sa.update(ModelVersion)
        .where(ModelVersion.version == version, ModelVersion.problem != problem)
        .values(problem=problem)
    )


def problems(session: Session) -> list[tuple[str, str]]:
    """(version, why) of versions that did not load."""
    rows = session.execute(sa.select(ModelVersion.version, ModelVersion.problem).where(ModelVersion.problem != ""))
    return [(version, problem) for version, problem in rows]


def operator() -> str:
    """Whoever runs this command, for the audit: user@host."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, in a container
        return f"unknown@{socket.gethostname()}"
