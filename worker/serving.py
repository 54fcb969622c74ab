"""Which version of the generator a worker colours with: the champion of this moment, or the one a job is bound to.

The champion is looked up before every job, so that a promotion reaches a worker between two jobs. A version that does
not load never stops the work: the one before goes on serving, and the record says why.
"""

import logging
import time
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from model import registry
from model.registry import Version, WeightsError
from model.store import Store
from worker import fitness, versions
from worker.db import Database, has_tables, open_database
from worker.errors import VersionUnusable, WeightsBroken
from worker.settings import Settings

if TYPE_CHECKING:
    from model.colorizer import Colorizer

logger = logging.getLogger(__name__)

#: how long a version that did not load is left alone
TRY_AGAIN_S: Final = 60.0
#: versions held in memory: the champion, and one that recolouring asks for
HELD: Final = 2


class Serving:
    """The versions that one worker process has loaded and warm."""

    def __init__(self, store: Store, database: Database) -> None:
        self._store = store
        self._database = database
        self._loaded: dict[str, Colorizer] = {}  # the last used is the last
        self._champion: Colorizer | None = None
        self._refused: dict[str, float] = {}

    def champion(self) -> "Colorizer":
        """The version for jobs that are bound to none; loaded, checked and warm.

        Raises:
            WeightsBroken: neither the champion nor any version before it loads, the shipped one included.
        """
        wanted, fallbacks = self._wanted()
        if self._champion is not None and self._champion.version.name == wanted:
            return self._champion
        if self._champion is not None:
            if time.monotonic() >= self._refused.get(wanted, 0):
                self._switch(wanted)
            return self._champion
        for name in dict.fromkeys([wanted, *fallbacks]):
            try:
                self._champion = self._load(name)
            except VersionUnusable as error:
                self._refuse(name, error)
            else:
                return self._champion
        raise WeightsBroken("No version of the generator loads. Install Photochrom again, or restore model/weights.")

    def _wanted(self) -> tuple[str, list[str]]:
        """The champion's name, and what may serve in its place."""
        with self._database.reading() as session:
            chosen, earlier = versions.champion(session), versions.earlier(session)
        try:
            shipped = [registry.shipped().name]
        except WeightsError as error:
            if chosen is None:
                raise WeightsBroken(f"{error} Install Photochrom again, or restore model/weights.") from error
            shipped = []
        return (chosen or shipped[0]), [*earlier, *shipped]

    def _switch(self, wanted: str) -> None:
        """Take a new champion, after a fresh process has had it; or stay with the present one, loudly."""
        serves = self._champion.version.name if self._champion else ""
        try:
            if wanted not in self._loaded and (problem := fitness.check(self._open(wanted).directory).problem):
                raise VersionUnusable(problem)
            self._champion = self._load(wanted)
        except VersionUnusable as error:
            self._refuse(wanted, error)
            logger.warning("champion_not_changed", extra={"wanted": wanted, "serves": serves})
            return
        self._refused.pop(wanted, None)
        logger.warning("champion_changed", extra={"version": wanted, "before": serves})

    def named(self, name: str) -> "Colorizer":
        """Exactly the version a job is bound to.

        Raises:
            VersionUnusable: it does not load; no other may do the job in its place.
        """
        return self._load(name)

    def _open(self, name: str) -> Version:
        try:
            return self._store.open(name)
        except WeightsError as error:
            raise VersionUnusable(str(error)) from error

    def _load(self, name: str) -> "Colorizer":
        if name in self._loaded:
            self._loaded[name] = self._loaded.pop(name)
            return self._loaded[name]
        from model.colorizer import ChromaNotFinite, Colorizer  # loads TensorFlow; whoever only asks does without

        version = self._open(name)
        try:
            colorizer = Colorizer(version)
            colorizer.warm()
        except (WeightsError, ChromaNotFinite) as error:
            raise VersionUnusable(str(error)) from error
        self._keep(version)
        self._note(name, "")
        spare = [held for held in self._loaded if not (self._champion and held == self._champion.version.name)]
        if len(self._loaded) >= HELD and spare:
            del self._loaded[spare[0]]
        self._loaded[name] = colorizer
        return colorizer

    def _keep(self, version: Version) -> None:
        """Derivatives will name it: an upgrade that ships another version must not take it away."""
        try:
            self._store.keep(version)
        except OSError as error:
            logger.warning("version_not_kept", extra={"version": version.name, "why": str(error)})

    def _refuse(self, name: str, error: VersionUnusable) -> None:
        self._refused[name] = time.monotonic() + TRY_AGAIN_S
        # one line that the supervisor shows, not a traceback: the reason says all
        logger.log(logging.ERROR, "version_does_not_load", extra={"version": name, "why": str(error)})
        self._note(name, str(error))

    def _note(self, name: str, problem: str) -> None:
        try:
            with self._database.writing() as session:
                versions.note_problem(session, name, problem)
        except sa.exc.SQLAlchemyError:
            logger.warning("problem_not_recorded", exc_info=True)


def colorizer_by_record(settings: Settings) -> "Colorizer":
    """The champion, for verbs that work without queue; without a database it is the shipped version.

    Raises:
        WeightsBroken: it does not load.
    """
    from model.colorizer import Colorizer

    try:
        return Colorizer(chosen(settings))
    except WeightsError as error:
        raise WeightsBroken(f"{error} `photochrom models list` shows what there is.") from error


def chosen(settings: Settings) -> Version:
    """The champion as its record says, not loaded.

    Raises:
        WeightsError: its folder is missing or broken.
    """
    name = None
    if has_tables(settings.database):
        database = open_database(settings.database)
        try:
            with database.reading() as session:
                name = versions.champion(session)
        finally:
            database.dispose()
    return Store(settings.models).open(name) if name else registry.shipped()
