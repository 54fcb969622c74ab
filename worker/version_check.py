"""Are the versions on disk still those that were published? For `photochrom doctor`: reads files, loads no net."""

import dataclasses
from typing import Final

from model import registry
from model.registry import WeightsError
from model.store import Store
from worker import versions
from worker.db import has_tables, open_database
from worker.errors import WeightsBroken
from worker.settings import Settings

#: problems that are spelled out; there may be many when a whole folder is gone
MOST_TOLD: Final = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Known:
    """What the record says of a version."""

    weights_sha256: str = ""
    jobs: int = 0
    serves: bool = False


def examine_versions(settings: Settings) -> str:
    """Compare every version's weights with its own record and the database's; what there is, in one line.

    Raises:
        WeightsBroken: at least one is missing, changed, truncated or of a newer format; says of each what to do.
    """
    store, known = Store(settings.models), _recorded(settings)
    names = sorted({*store.names(), *known})
    problems = [
        f"version {name}: {problem} {_next_step(name, known.get(name, _Known()))}"
        for name in names
        if (problem := _problem(store, name, known.get(name, _Known()).weights_sha256))
    ]
    if problems:
        more = f" And {len(problems) - MOST_TOLD} more." if len(problems) > MOST_TOLD else ""
        raise WeightsBroken(" ".join(problems[:MOST_TOLD]) + more)
    return f"{len(names)} in {settings.models} and shipped, all with the weights they were published with"


def _recorded(settings: Settings) -> dict[str, _Known]:
    """What derivatives, the alias and the record name; nothing where there is no database yet."""
    if not has_tables(settings.database):
        return {}
    database = open_database(settings.database)
    try:
        with database.reading() as session:
            jobs, champion = versions.derivatives(session), versions.champion(session)
            hashes = {row.version: row.weights_sha256 for row in versions.all_versions(session)}
    finally:
        database.dispose()
    return {
        name: _Known(weights_sha256=hashes.get(name, ""), jobs=jobs.get(name, 0), serves=name == champion)
        for name in {*hashes, *jobs, *([champion] if champion else [])}
    }


def _problem(store: Store, name: str, recorded_sha256: str) -> str:
    """Why a version is not what it was, as a sentence; "" when it is."""
    try:
        version = store.open(name)
        registry.check_weights(version)
    except WeightsError as error:
        return str(error)
    if recorded_sha256 and version.weights_sha256 != recorded_sha256:
        return f"its weights {version.weights_sha256[:12]}… are not those of the record, {recorded_sha256[:12]}…."
    return ""


def _next_step(name: str, known: _Known) -> str:
    """What to do about a broken version, by who needs it."""
    if known.serves:
        return f"It is the champion: `photochrom models rollback` now, then restore the folder of {name}."
    if known.jobs:
        return f"{known.jobs} derivatives name it: restore its folder from a backup or `photochrom models import` it."
    return "Nothing names it: restore its folder, or remove it."
