"""Is there room for the derivatives of the next scans? A root pauses before its disk is full, and goes on by itself."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Final

from sqlalchemy.orm import Session

from worker import outbox
from worker.answers import NoAnswer, ask
from worker.room import free_bytes
from worker.settings import RootSettings, Settings
from worker.tables import display

#: so many of the next scans must fit
AHEAD: Final = 4


def wanted_bytes(session: Session, settings: Settings) -> dict[str, int]:
    """What the derivatives of running and next jobs will take, by root; no disk is looked at."""
    return {root.key: outbox.bytes_wanted(session, root.key, ahead=AHEAD) for root in settings.watched}


def shortages(settings: Settings, wanted: Mapping[str, int]) -> dict[str, str]:
    """The roots that have to pause, by name, and why in one sentence. A disk may take long to answer."""
    return {root.key: why for root in settings.watched if (why := _shortage(root, wanted[root.key], settings))}


def _shortage(root: RootSettings, wanted: int, settings: Settings) -> str:
    reserve = settings.min_free_mib << 20
    try:
        # a worker that opens a scan on a share that does not answer waits as long, and all other scans with it
        ask(root.path, partial(os.path.exists, root.path))
        for folder, needed in ((root.output, reserve + wanted), (settings.state_dir, reserve // 8)):
            free = ask(folder, partial(free_bytes, folder))
            if free is not None and free < needed:
                return (
                    f"Paused: {display(os.fsencode(folder))} has {free / 2**20:.0f} MiB free and the next scans want "
                    f"{needed / 2**20:.0f} MiB. Free some space; it goes on by itself."
                )
    except NoAnswer as error:
        silent = display(os.fsencode(error.filename))
        return (
            f"Paused: {silent} does not answer (for {error.for_s:.0f} s): its server, its disk or the network is down. "
            "It goes on by itself when it answers."
        )
    return ""
