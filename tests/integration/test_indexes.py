"""Questions to a record of any length go by an index: SQLite's plan of each names one."""

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from rows_made import source_file

from daemon import explain_output
from daemon.cli import main
from worker import fixity, identity, outbox, twins
from worker.db import Database, after, open_database
from worker.tables import Job, JobState, Root, RootState, SourceFile

#: counting all by state is the one question that looks at every entry, of an index
COUNTS = ("SCAN jobs USING COVERING INDEX", "SCAN source_files USING COVERING INDEX")


class Plans:
    """The plans of all statements that a database is asked meanwhile."""

    def __init__(self, engine: sa.Engine) -> None:
        self.steps: list[tuple[str, str]] = []
        sa.event.listen(engine, "after_cursor_execute", self._note)
        self._engine = engine

    def _note(self, connection: sa.Connection, _cursor: object, statement: str, values: object, *_: object) -> None:
        if statement.startswith(("SELECT", "UPDATE")):
            plan = connection.connection.cursor()
            plan.execute("EXPLAIN QUERY PLAN " + statement, values)
            self.steps += [(str(row[3]), statement) for row in plan.fetchall()]

    def scans(self) -> list[tuple[str, str]]:
        """Steps that look at every row of the large tables, and sorts of them."""
        sa.event.remove(self._engine, "after_cursor_execute", self._note)
        assert self.steps
        return [
            (step, statement) for step, statement in self.steps
            if step.startswith(("SCAN jobs", "SCAN source_files")) and not step.startswith(COUNTS)
        ]  # fmt: skip


@pytest.fixture
def filled(state_database: Database, tmp_path: Path) -> Database:
    """A few rows of each kind, so that every question has something to go on."""
    with state_database.writing() as session:
        session.add(Root(name="r", path=bytes(tmp_path / "in"), output=bytes(tmp_path / "out"), mode="scan",
                         fs_type="", state=RootState.ONLINE, identity=json.dumps({"inode": 1})))  # fmt: skip
        for number, state in enumerate(JobState, 1):
            file = source_file(b"%d.tif" % number, root="r")
            session.add(file)
            session.flush()
            ended = state not in {JobState.QUEUED, JobState.RUNNING}
            job = Job(source_file_id=file.id, root="r", path=file.path, display_path=file.display_path, size_bytes=1,
                      source_sha256=f"{number:064d}", state=state, output_path=b"%d.png" % number,
                      output_sha256="a" * 64, dispatched_at=after(-number - 60), started_at=after(-50),
                      finished_at=after(0) if ended else None)  # fmt: skip
            session.add(job)
            session.flush()
            file.job_id = job.id
    return state_database


def test_what_is_asked_all_the_time_goes_by_an_index(filled: Database) -> None:
    plans = Plans(filled.engine)
    with filled.reading() as session:
        explain_output.publisher(session, "r", b"3.png")
        outbox.to_dispatch(session, in_flight=8, broker_empty=False, grace_s=1)
        outbox.to_dispatch(session, in_flight=8, broker_empty=True)
        outbox.bytes_wanted(session, "r", ahead=3)
        identity.sample(session, "r")
    list(fixity.check_all(filled))
    assert plans.scans() == []
    assert any("ix_jobs_output_path" in step for step, _ in plans.steps)
    # no more than these: the backlog of another folder, or twins that have ended, may be very many
    for narrow in (
        "ix_jobs_state_root_priority_id (state=? AND root=?)",
        "ix_jobs_source_sha256_state_variant_id (source_sha256=? AND state=? AND variant=? AND id<?)",
    ):
        assert any(narrow in step for step, _ in plans.steps), narrow
    sorts = [statement for step, statement in plans.steps if "TEMP B-TREE FOR ORDER BY" in step]
    assert sorts == []


@pytest.mark.parametrize(
    "call",
    [["status"], ["health"], ["quarantine", "list"], ["jobs", "--state", "done"], ["why", "{}/out/3.png"],
     ["why", "{}/in/1.tif"], ["quarantine", "show", "7"]],
    ids=" ".join,
)  # fmt: skip
def test_verbs_go_by_an_index(
    call: list[str], filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plans] = []

    def planned(url: str) -> Database:
        database = open_database(url)
        plans.append(Plans(database.engine))
        return database

    monkeypatch.setattr("worker.record.open_database", planned)
    said = CliRunner().invoke(main, [word.format(tmp_path) for word in call])
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    assert plans and plans[0].scans() == []


def _long(record: Database, of_row: Callable[[int], dict[str, object]]) -> None:
    """5000 jobs, and what the database counts to plan by."""
    with record.writing() as session:
        session.add(source_file(b"a.tif", root="r", id=1))
        session.flush()
        row = {"source_file_id": 1, "root": "r", "path": b"a.tif", "display_path": "a.tif", "size_bytes": 1,
               "priority": 3, "reason": "", "claim_no": 0, "failures": 0, "lost": 0,
               "parameters": {}, "report": {}, "output_sha256": "a" * 64,
               "created_at": dt.datetime.now(dt.UTC)}  # fmt: skip
        session.execute(
            sa.insert(Job),
            [{**row, "variant": str(n), "output_path": b"%d.png" % n, **of_row(n)} for n in range(5000)],
        )
    with record.writing() as session:
        session.execute(sa.text("ANALYZE"))


def _plan(record: Database, url: str, query: sa.Select[int]) -> str:
    words = "EXPLAIN QUERY PLAN " if url.startswith("sqlite") else "EXPLAIN "
    compiled = query.compile(record.engine, compile_kwargs={"render_postcompile": True})
    with record.engine.connect() as connection:
        steps = connection.exec_driver_sql(words + str(compiled), _values(compiled)).fetchall()
    return "\n".join(str(step[-1]) for step in steps)


def test_a_derivative_is_found_by_its_index_on_both_databases(record: Database, url: str) -> None:
    _long(record, lambda n: {"source_sha256": f"{n:064d}", "state": JobState.DONE})
    query = sa.select(Job.id).where(Job.root == "r", Job.output_path == b"77.png", Job.output_sha256.is_not(None))
    plan = _plan(record, url, query)
    assert "ix_jobs_output_path" in str(plan), plan
    with record.reading() as session:
        found = explain_output.publisher(session, "r", b"77.png")
        assert found is not None and found.variant == "77"
        assert explain_output.publisher(session, "other", b"77.png") is None
        assert session.scalar(sa.select(sa.func.count(SourceFile.id))) == 1


def test_twins_that_have_ended_are_not_looked_at_on_both_databases(record: Database, url: str) -> None:
    """A thousand copies of one scan among others, half of them done."""
    with record.writing() as session:
        session.execute(sa.text("DROP INDEX uq_jobs_live"))
    _long(
        record,
        lambda n: {
            "source_sha256": f"{max(n, 1000):064d}", "variant": "",
            "state": JobState.QUEUED if n < 500 else JobState.DONE,
        },
    )  # fmt: skip
    plan = _plan(record, url, sa.select(Job.id).where(Job.state == JobState.QUEUED, ~twins.elder_twin()))
    if url.startswith("sqlite"):
        assert "(source_sha256=? AND state=? AND variant=? AND id<?)" in plan, plan
    else:
        assert re.search(r"ix_jobs_source_sha256_state_variant_id.*\n.*Index Cond:.*state.*'queued'", plan), plan


def _values(compiled: sa.Compiled) -> dict[str, object] | tuple[object, ...]:
    values = dict(compiled.params)
    names = getattr(compiled, "positiontup", None)
    return tuple(values[name] for name in names) if names else values
