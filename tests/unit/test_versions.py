"""The record of versions: one alias, every flip with an audit row, and the way back."""

import pytest

from worker import versions
from worker.db import Database
from worker.errors import VersionRefused
from worker.learning_tables import VersionState


def _record(database: Database, *names: str) -> None:
    with database.writing() as session:
        for name in names:
            versions.record(session, name, directory=f"/m/{name}", weights_sha256=name * 4,
                            state=VersionState.CANDIDATE)  # fmt: skip


def _flip(database: Database, version: str, action: str = "promote") -> str:
    with database.writing() as session:
        return versions.promote(session, version, shipped="s", actor="me@here", reason="why not", action=action)


def test_nobody_chose_a_champion_yet(record: Database) -> None:
    with record.reading() as session:
        assert versions.champion(session) is None
        assert versions.earlier(session) == []


def test_a_flip_leaves_one_alias_and_one_audit_row_each(record: Database) -> None:
    _record(record, "s", "a", "b")
    assert _flip(record, "a") == "s"
    assert _flip(record, "b") == "a"
    with record.reading() as session:
        assert versions.champion(session) == "b"
        told = [(e.action, e.previous, e.version, e.actor, e.reason) for e in versions.events(session)]
        assert versions.earlier(session) == ["a", "s"]
        assert {v.version: v.state for v in versions.all_versions(session)} == {
            "s": "candidate", "a": "promoted", "b": "promoted",
        }  # fmt: skip
    assert told == [("promote", "s", "a", "me@here", "why not"), ("promote", "a", "b", "me@here", "why not")]


def test_rollback_goes_back_step_by_step(record: Database) -> None:
    _record(record, "s", "a", "b")
    _flip(record, "a")
    _flip(record, "b")
    for now, back in (("b", "a"), ("a", "s")):
        with record.reading() as session:
            assert versions.champion(session) == now
            assert versions.before(session, now) == back
        _flip(record, back, "rollback")
    with record.reading() as session:
        assert versions.before(session, "s") is None


def test_a_version_that_was_promoted_twice_is_no_trap_for_rollbacks(record: Database) -> None:
    _record(record, "s", "a", "b")
    for name in ("a", "b", "a"):
        _flip(record, name)
    for now, back in (("a", "b"), ("b", "a"), ("a", "s")):
        with record.reading() as session:
            assert (versions.champion(session), versions.before(session, now)) == (now, back)
        _flip(record, back, "rollback")
    with record.reading() as session:
        assert versions.before(session, "s") is None
    _flip(record, "b")
    with record.reading() as session:
        assert versions.before(session, "b") == "s"
        assert versions.before(session, "a") is None  # it does not serve


def test_what_is_not_there_or_serves_already_is_refused_and_nothing_is_written(record: Database) -> None:
    _record(record, "a")
    for name in ("nobody", "a", "a"):
        try:
            _flip(record, name)
        except VersionRefused as error:
            assert name in str(error)
    with record.reading() as session:
        assert [e.version for e in versions.events(session)] == ["a"]


def test_a_version_never_changes_its_weights(record: Database) -> None:
    _record(record, "a")
    with record.writing() as session, pytest.raises(VersionRefused, match="other weights"):
        versions.record(session, "a", directory="", weights_sha256="f" * 64, state=VersionState.CANDIDATE)


def test_a_problem_is_noted_and_forgotten(record: Database) -> None:
    _record(record, "a")
    for problem, expected in (("torn", [("a", "torn")]), ("", [])):
        with record.writing() as session:
            versions.note_problem(session, "a", problem)
        with record.reading() as session:
            assert versions.problems(session) == expected
