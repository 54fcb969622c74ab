"""The version of the generator that a watched folder is bound to (`model` in its `[[roots]]` table)."""

from sqlalchemy.orm import Session

from model.store import Store
from worker import versions
from worker.db import Database
from worker.errors import UnknownSetting
from worker.settings import Settings


def refuse_unknown(settings: Settings, database: Database) -> None:
    """See that every folder's version is there: on this host's disk, in the record, or by an alias.

    Raises:
        UnknownSetting: one is not; its scans would be quarantined one by one.
    """
    for root in settings.watched:
        with database.reading() as session:
            known = not root.model or _is_recorded(session, root.model)
        if not known and root.model not in Store(settings.models).names():
            raise UnknownSetting(
                f"Setting model of the folder {root.key}: there is no version or alias '{root.model}'. "
                "`photochrom models list` names them all; correct it in photochrom.toml, or import the version."
            )


def _is_recorded(session: Session, name: str) -> bool:
    return name in versions.aliases(session) or any(row.version == name for row in versions.all_versions(session))
