"""Is there room for the derivatives of the next scans? A root pauses before its disk is full, and goes on by itself."""

from typing import Final

from sqlalchemy.orm import Session

from worker import outbox
from worker.room import free_bytes
from worker.settings import RootSettings, Settings

#: so many of the next scans must fit
AHEAD: Final = 4


def shortages(session: Session, settings: Settings) -> dict[str, str]:
    """The roots that have to pause, by name, and why in one sentence.

    Args:
        session: a reading session.
        settings: those in force.
    """
    found = {}
    for root in settings.watched:
        if reason := _shortage(session, root, settings):
            found[root.key] = reason
    return found


def _shortage(session: Session, root: RootSettings, settings: Settings) -> str:
    reserve = settings.min_free_mib << 20
    wanted = outbox.bytes_wanted(session, root.key, ahead=AHEAD)
    for folder, needed in ((root.output, reserve + wanted), (settings.state_dir, reserve // 8)):
        free = free_bytes(folder)
        if free is not None and free < needed:
            return (
                f"Paused: {folder} has {free / 2**20:.0f} MiB free and the next scans want {needed / 2**20:.0f} MiB. "
                "Free some space; it goes on by itself."
            )
    return ""
