"""When retraining runs, by whom, and what colouring does meanwhile."""

import contextlib
import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.beat import Scheduler
from click.testing import CliRunner

from daemon import up
from daemon.cli import main
from daemon.dispatch import Dispatcher
from worker import ledger, overview, queue, training_runs
from worker.db import Database
from worker.errors import BrokerUnavailable, TrainingTaken, UnknownSetting
from worker.learning_tables import RunState, TrainingRun
from worker.settings import TRAINER, Settings, load


def test_beat_sends_retraining_when_the_cron_says_so_and_lets_a_missed_one_go() -> None:
    assert set(queue.celery_settings(Settings())["beat_schedule"]) == {"tidy"}
    schedule = queue.celery_settings(Settings(retrain_cron="0 2 * * 6"))["beat_schedule"]["retrain"]
    assert schedule["task"] == queue.RETRAIN
    assert schedule["schedule"].hour == {2} and schedule["schedule"].day_of_week == {6}
    assert 0 < schedule["options"]["expires"] <= 3600  # schedules that nobody took do not pile up


@pytest.mark.parametrize("limit_s", [1, 900, 3600, 86400])
def test_no_job_outlives_the_time_after_which_the_broker_sends_its_message_again(limit_s: float) -> None:
    sent = queue.celery_settings(Settings(job_limit_s=limit_s))
    assert sent["task_time_limit"] == limit_s
    times_s = {sent["visibility_timeout"], sent["broker_transport_options"]["visibility_timeout"]}
    assert len(times_s) == 1 and times_s.pop() > limit_s


def test_a_schedule_that_beat_slept_through_is_not_caught_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    when = queue.celery_settings(Settings(retrain_cron="0 2 * * 6"))["beat_schedule"]["retrain"]["schedule"]
    app = Celery(set_as_current=False)
    app.conf.update(beat_cron_starting_deadline=queue.celery_settings(Settings())["beat_cron_starting_deadline"])
    monkeypatch.setattr(when, "app", app)
    saturday = dt.datetime(2026, 11, 21, 2, 0, tzinfo=dt.UTC)
    for late, due in ((dt.timedelta(minutes=2), True), (dt.timedelta(hours=2), False), (dt.timedelta(days=23), False)):
        monkeypatch.setattr(when, "nowfun", lambda late=late: saturday + late)
        assert when.is_due(saturday - dt.timedelta(days=7)).is_due is due, late


@pytest.fixture
def started_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Scheduler]:
    """The scheduler of a beat that has just started, with nothing but JSON and text at hand."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no pickle at run time")

    def start(cron: str) -> Scheduler:
        monkeypatch.chdir(tmp_path)
        app = Celery(set_as_current=False)
        app.conf.update(queue.celery_settings(Settings(state_dir=tmp_path, retrain_cron=cron)))
        made = app.Beat(quiet=True, pidfile=None)
        service = made.Service(app=app, schedule_filename=made.schedule, scheduler_cls=made.scheduler_cls)
        return service.get_scheduler()

    for name in ("shelve.open", "pickle.dump", "pickle.dumps", "pickle.load", "pickle.loads"):
        monkeypatch.setattr(name, refuse)
    return start


def test_beat_keeps_nothing_on_the_disk(started_beat: Callable[[str], Scheduler], tmp_path: Path) -> None:
    scheduler = started_beat("0 2 * * 6")
    assert set(scheduler.schedule) == {"tidy", "retrain"}
    scheduler.sync()
    scheduler.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("late_min", "due"), [(2, True), (30, False), (12 * 60, False)])
def test_a_beat_that_was_down_for_a_moment_misses_no_schedule(
    started_beat: Callable[[str], Scheduler], late_min: int, due: bool
) -> None:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=late_min)
    assert started_beat(f"{at.minute} {at.hour} * * *").schedule["retrain"].is_due().is_due is due


def test_a_beat_that_runs_for_less_than_an_hour_tidies_too(started_beat: Callable[[str], Scheduler]) -> None:
    due, wait_s = started_beat("").schedule["tidy"].is_due()
    assert not due and 0 < wait_s <= queue.FIRST_TIDY_S


def test_a_trainer_asks_for_what_an_earlier_one_left_and_a_worker_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import tasks

    asked: list[str] = []
    monkeypatch.setattr(queue, "ask_for_retraining", asked.append)
    monkeypatch.delenv(TRAINER, raising=False)
    tasks._ready()
    assert asked == []
    monkeypatch.setenv(TRAINER, "1")
    tasks._ready()
    tasks._interrupted(exception=WorkerLostError("signal 9 (SIGKILL)"))
    tasks._interrupted(exception=ValueError("what the run's row says"))
    assert asked == [queue.RESUME, queue.RESUME]

    def silent(trigger: str) -> None:
        raise BrokerUnavailable("The broker does not answer.")

    monkeypatch.setattr(queue, "ask_for_retraining", silent)
    tasks._ready()  # the next schedule goes on with it


def test_a_trainer_does_one_run_at_a_time_and_then_gives_back_what_it_held(
    state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr(queue.app, "worker_main", given.extend)
    monkeypatch.setenv(TRAINER, "")  # so that it is put back
    assert CliRunner().invoke(main, ["trainer"]).exit_code == 0
    options = dict(zip(given[1::2], given[2::2], strict=False))
    assert options["--queues"] == queue.TRAIN_QUEUE
    assert options["--concurrency"] == options["--max-tasks-per-child"] == "1"


def test_minutes_are_for_a_run_in_the_foreground() -> None:
    for arguments in (["--minutes", "5"], ["--detach", "--minutes", "5"]):
        done = CliRunner().invoke(main, ["retrain", *arguments])
        assert done.exit_code == 2 and "--minutes is for --now" in done.output


def test_a_training_process_is_nicer_than_a_colouring_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import pipeline, tasks

    nice: list[int] = []
    monkeypatch.setattr(tasks.os, "nice", nice.append)
    monkeypatch.setattr(tasks.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    monkeypatch.setattr(pipeline, "prepare", lambda: None)
    monkeypatch.delenv(TRAINER, raising=False)
    tasks._prepare()
    monkeypatch.setenv(TRAINER, "1")
    tasks._prepare()
    assert nice == [5, 15]


@pytest.mark.parametrize("cron", ["daily", "0 2 * *", "0 2 * * 6 7"])
def test_a_cron_that_is_none_is_refused_at_the_start(cron: str) -> None:
    with pytest.raises(UnknownSetting, match="five cron fields"):
        load({"retrain_cron": cron})


def test_training_has_a_queue_a_task_and_a_process_of_its_own(tmp_path: Path, database: Database) -> None:
    from worker import tasks

    settings = Settings(state_dir=tmp_path)
    assert queue.celery_settings(settings)["task_routes"][queue.RETRAIN] == queue.TRAIN_QUEUE
    assert queue.RETRAIN in queue.app.tasks and not tasks.retrain.acks_late
    assert tasks.retrain.time_limit > settings.job_limit_s
    names = [child.name for child in up._children(settings, database)]
    assert "trainer" not in names
    scheduled = Settings(state_dir=tmp_path, retrain_cron="0 2 * * 6")
    assert [child.name for child in up._children(scheduled, database)] == [*names, "trainer"]


def wait_until(true: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def start(database: Database) -> TrainingRun:
    with database.writing() as session:
        row, ours = training_runs.begin(session, trigger="now", least_new=0, holder=training_runs.this_process())
        session.expunge(row)
    assert ours
    return row


def test_resuming_starts_no_new_run_and_records_nothing(
    record: Database, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import retrain, retrain_commands

    begun: list[str] = []
    monkeypatch.setattr(retrain, "run", lambda *_, trigger: begun.append(trigger) or retrain.Ended(
        state=RunState.REJECTED, reason="", run_id=1))  # fmt: skip
    monkeypatch.setattr(retrain_commands, "made", lambda _: contextlib.nullcontext(record))
    monkeypatch.setattr(retrain_commands, "use_device", lambda _: None)
    monkeypatch.setattr(retrain_commands, "LEASE_POLL_S", 0.01)
    monkeypatch.setattr(training_runs, "LONGEST_LEASE_S", 0.05)  # so long it waits for another process's end
    retrain_commands.do(queue.RESUME)
    assert begun == []
    row = start(record)
    retrain_commands.do(queue.RESUME)  # it is being worked on, by this very process
    assert begun == []
    with record.writing() as session:
        training_runs.release(session, row, "Interrupted.")
    retrain_commands.do(queue.RESUME)
    assert begun == [queue.RESUME]


def test_the_lease_is_renewed_while_the_work_is_silent(record: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BEAT_S", 0.02)
    row = start(record)
    held = ledger.Ledger(record, row, lambda phase, fraction, says: None)

    def lease() -> object:
        with record.reading() as session:
            return session.scalar(sa.select(TrainingRun.lease_until))

    with record.writing() as session:
        session.execute(sa.update(TrainingRun).values(lease_until=None))
    with held.kept_alive():
        wait_until(lambda: lease() is not None)
        with record.writing() as session:  # taken over by another process
            session.execute(sa.update(TrainingRun).values(claim_no=2, lease_until=None))
        time.sleep(0.2)
        assert lease() is None
        with pytest.raises(TrainingTaken):
            held.note(phase="training")


def test_colouring_pauses_only_while_a_run_is_under_way_and_only_by_setting(record: Database) -> None:
    for pauses in (False, True):
        dispatcher = Dispatcher(record, Settings(retrain_pauses_colouring=pauses))
        with record.reading() as session:
            assert not dispatcher._training(session)
    row = start(record)
    with record.reading() as session:
        assert dispatcher._training(session)
        assert not Dispatcher(record, Settings())._training(session)
    with record.writing() as session:
        training_runs.finish(session, row, RunState.REJECTED, "worse")
    with record.reading() as session:
        assert not dispatcher._training(session)


def test_status_shows_how_far_a_run_is_and_what_it_came_to(record: Database) -> None:
    row = start(record)
    with record.writing() as session:
        training_runs.update(session, row, phase="training", fraction=0.4, eta_s=600.0)
    with record.reading() as session:
        seen = overview.overview(session)
    assert seen.training is not None
    assert training_runs.sentence(seen.training) == "Run 1 is training (40 %, about 10 min of training left)."
    with record.writing() as session:
        training_runs.finish(session, row, RunState.REJECTED, "Worse.", version="r1-x")
        training_runs.begin(session, trigger="schedule", least_new=5, holder="")
    with record.reading() as session:
        latest = training_runs.latest(session)
        states = session.scalars(sa.select(TrainingRun.state).order_by(TrainingRun.id)).all()
    assert latest is not None and training_runs.sentence(latest) == "Run 1 made version r1-x: rejected. Worse."
    assert states == ["rejected", "skipped"]
