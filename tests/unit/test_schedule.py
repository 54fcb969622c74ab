"""When retraining runs, by whom, and what colouring does meanwhile."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from daemon import up
from daemon.dispatch import Dispatcher
from worker import overview, queue, training_runs
from worker.db import Database
from worker.errors import UnknownSetting
from worker.learning_tables import RunState, TrainingRun
from worker.settings import Settings, load


def test_beat_sends_retraining_when_the_cron_says_so_and_lets_a_missed_one_go() -> None:
    assert set(queue.celery_settings(Settings())["beat_schedule"]) == {"tidy"}
    schedule = queue.celery_settings(Settings(retrain_cron="0 2 * * 6"))["beat_schedule"]["retrain"]
    assert schedule["task"] == queue.RETRAIN
    assert schedule["schedule"].hour == {2} and schedule["schedule"].day_of_week == {6}
    assert 0 < schedule["options"]["expires"] <= 3600  # schedules that nobody took do not pile up


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


def start(database: Database) -> TrainingRun:
    with database.writing() as session:
        row, ours = training_runs.begin(session, trigger="now", least_new=0, holder=training_runs.this_process())
        session.expunge(row)
    assert ours
    return row


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
