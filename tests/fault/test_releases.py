"""Two releases on one record: this one, and a later one, made here of this one's files and a migration more."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from cells import Cell
from installation import has_ended, wait_for
from invariants import assert_invariants
from plant import Plant, broker_of, children_of, command_line, parts

from worker import db
from worker.errors import ExitCode
from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(db.__file__).parents[1]
#: migration, how a table is described, how it is described by the later release
ADDED = ("ALTER TABLE jobs ADD COLUMN later TEXT DEFAULT '' NOT NULL",
         "    host: Mapped[str | None]",
         '    later: Mapped[str] = mapped_column(default="new")\n    host: Mapped[str | None]')  # fmt: skip
RENAMED = ("ALTER TABLE jobs RENAME COLUMN traceback_tail TO evidence",
           "    traceback_tail: Mapped[str | None] = mapped_column(sa.Text)\n",
           '    traceback_tail: Mapped[str | None] = mapped_column("evidence", sa.Text)\n')  # fmt: skip
BACK = {ADDED: "ALTER TABLE jobs DROP COLUMN later",
        RENAMED: "ALTER TABLE jobs RENAME COLUMN evidence TO traceback_tail"}  # fmt: skip


class Release:
    """A later release, in a folder of its own."""

    def __init__(self, folder: Path, change: tuple[str, str, str] | None, plant: Plant) -> None:
        self.folder, self.plant = folder, plant
        for room in ("daemon", "worker", "migrations"):
            shutil.copytree(REPOSITORY / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "model").symlink_to(REPOSITORY / "model")
        if change is None:  # of the same schema
            return
        tables = folder / "worker" / "tables.py"
        assert change[1] in tables.read_text()
        tables.write_text(tables.read_text().replace(change[1], change[2]))
        head = ScriptDirectory(str(db.MIGRATIONS)).get_current_head()
        (folder / "migrations" / "versions" / "later.py").write_text(
            "from alembic import op\n"
            f"revision, down_revision, branch_labels, depends_on = 'later', {head!r}, None, None\n"
            f"def upgrade():\n    op.execute({change[0]!r})\ndef downgrade():\n    op.execute({BACK[change]!r})\n"
        )

    @property
    def environ(self) -> dict[str, str]:
        base = self.plant.installation
        return base.environ | {
            "PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1", "PHOTOCHROM_INBOX": str(base.inbox),
            "PHOTOCHROM_OUTPUT": str(base.output), "PHOTOCHROM_FAULT": str(self.plant.faults),
            "PHOTOCHROM_WORKER": "later",
            "PHOTOCHROM_DATABASE_URL": self.plant.database.engine.url.render_as_string(hide_password=False),
        }  # fmt: skip

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        told = subprocess.run(self.plant.installation.command(verb), env=self.environ, cwd=self.plant.installation.base,
                              capture_output=True, text=True, timeout=90)  # fmt: skip
        assert "Traceback" not in told.stderr, told.stderr
        return told

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Its watcher and worker."""
        started = []
        for verb in ("watch", "worker"):
            with (self.plant.installation.state_dir / "logs" / f"later-{verb}.log").open("wb") as log:
                started.append(subprocess.Popen(self.plant.installation.command(verb), env=self.environ, stdout=log,
                                                stderr=log, cwd=self.plant.installation.base))  # fmt: skip
        try:
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)

    def back(self) -> None:
        """The migration undone, as by its operator: the record is this release's again."""
        config = db.alembic_config(self.plant.database)
        config.set_main_option("script_location", str(self.folder / "migrations"))
        self.plant.database.dispose()
        command.downgrade(config, "-1")


def part(verb: str) -> int:
    """The process of this release that the test has started, not the later one's."""
    return next(pid for pid in children_of(os.getpid()) if f"daemon.cli {verb}" in command_line(pid))


def states(plant: Plant) -> list[str]:
    """Asked in a way that holds for both releases."""
    with plant.database.reading() as session:
        return list(session.scalars(sa.text("SELECT state FROM jobs WHERE state <> 'superseded'")))


@pytest.fixture
def busy() -> Iterator[Plant]:
    """This release's watcher and worker on their own, warm, with a broker."""
    with parts() as plant, broker_of(plant):
        wait_for(lambda: "worker_ready" in plant.log("worker"), 240, "the worker is warm")
        yield plant


def coloring() -> int:
    return next(pid for pid in children_of(part("worker")) if "spawn_main" in command_line(pid))


def test_migration_pending(busy: Plant, tmp_path: Path, cell: Cell) -> None:
    """A later release is started on a record that nobody has migrated: it refuses, and this one works on."""
    later = Release(tmp_path / "later", ADDED, busy)
    busy.arm("inference", "stop")
    originals = busy.drop("pending", 4)
    busy.hit("inference")
    for verb in ("watch", "worker"):
        refused = later.run(verb)
        assert refused.returncode == ExitCode.DATABASE
        assert "photochrom migrate" in refused.stderr
    os.kill(coloring(), signal.SIGCONT)
    began = time.time()
    ended = busy.settle("pending", 4)
    assert_invariants(busy, originals, "pending")
    assert {(job.claim_no, job.state) for job in busy.jobs("pending")} == {(1, JobState.DONE)}
    cell.recovered("a later release started before its migration, work in hand", ended - began, "(it refuses)")


@pytest.mark.parametrize("change", [ADDED, RENAMED], ids=["added", "renamed"])
def test_migrated_under_load(busy: Plant, tmp_path: Path, cell: Cell, change: tuple[str, str, str]) -> None:
    """This release is at work when the record becomes a later one's: it stops and says so; the later one goes on."""
    later = Release(tmp_path / "later", change, busy)
    watch, worker = part("watch"), part("worker")
    busy.arm("inference", "stop")
    originals = busy.drop("rolling", 6)
    busy.hit("inference")
    busy.wait_jobs("rolling", 6)
    migrated = later.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    os.kill(coloring(), signal.SIGCONT)
    wait_for(lambda: has_ended(watch) and has_ended(worker), 120, "this release's parts have ended")
    for name in ("watch", "worker"):
        assert "made by a newer Photochrom" in busy.log(name), busy.log(name)[-2000:]
    with later.at_work():
        wait_for(lambda: "worker_ready" in busy.log("later-worker"), 240, "the later release's worker is warm")
        began = time.time()
        try:
            wait_for(lambda: states(busy) == ["done"] * 6, 100, "the later release has done the rest")
        except AssertionError as error:
            raise AssertionError(f"{error}: {states(busy)}\n{busy.words()}") from None
        took_s = time.time() - began
    later.back()
    assert_invariants(busy, originals, "rolling")
    kind = "a column more" if change is ADDED else "a column renamed"
    cell.recovered(f"the record is migrated by a later release while this one works ({kind})", took_s,
                   "(this one stops; from when the later one is warm)")  # fmt: skip


def test_both_at_work(busy: Plant, tmp_path: Path, cell: Cell) -> None:
    """Two releases of one schema share the work, and the earlier one is ended while scans come, as in a deployment."""
    busy.arm("inference", "stop")
    originals = {"first": busy.drop("first", 2)}
    busy.hit("inference")
    with Release(tmp_path / "later", None, busy).at_work():
        wait_for(lambda: "worker_ready" in busy.log("later-worker"), 240, "the later release's worker is warm")
        os.kill(coloring(), signal.SIGCONT)
        originals["shared"] = busy.drop("shared", 24)
        busy.settle("shared", 24)
        watch, worker = part("watch"), part("worker")
        for pid in (watch, worker):
            os.kill(pid, signal.SIGTERM)
        began = time.time()
        originals["rest"] = busy.drop("rest", 6)
        wait_for(lambda: has_ended(watch) and has_ended(worker), 120, "the earlier release has ended")
        ended = max(busy.settle("first", 2), busy.settle("rest", 6))
    for folder, put in originals.items():
        assert_invariants(busy, put, folder)
    assert {str(job.worker).startswith("later") for job in busy.jobs("shared")} == {True, False}
    assert any(str(job.worker).startswith("later") for job in busy.jobs("rest"))
    assert {job.state for job in busy.jobs()} == {JobState.DONE}
    cell.recovered("two releases of one schema at work, the earlier one ended while scans come", ended - began)


def test_messages_of_another_release(busy: Plant, cell: Cell) -> None:
    """Tasks and arguments that this release does not know, before the messages that it does."""
    busy.arm("claimed", "stop")
    originals = busy.drop("foreign", 3)
    busy.hit("claimed")
    ids = [job.id for job in busy.wait_jobs("foreign", 3)]
    code = (
        "from worker import queue\n"
        f"for i in {ids}:\n"
        "    queue.app.send_task('photochrom.colorize_later', (i,), queue='colorize', priority=0)\n"
        "    queue.app.send_task(queue.COLORIZE, (i, {'form': 2}), priority=0)\n"
        "    queue.app.send_task(queue.COLORIZE, ({'job': i},), priority=0)\n"
        "    queue.app.send_task(queue.COLORIZE, (), {'job_id': i, 'form': 2}, priority=0)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=busy.installation.environ, cwd="/",
                   check=True, timeout=60)  # fmt: skip
    os.kill(coloring(), signal.SIGCONT)
    began = time.time()
    ended = busy.settle("foreign", 3)
    assert_invariants(busy, originals, "foreign")
    assert {job.claim_no for job in busy.jobs("foreign")} == {1}
    wait_for(lambda: "colorize_later" in busy.log("worker"), 30, "it says what it does not know")
    cell.recovered("messages of another release's form among ours", ended - began)
