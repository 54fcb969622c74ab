"""Questions to folders that may never answer: told in time, not asked twice meanwhile, and answered afterwards."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import examine
from worker import answers
from worker.answers import NoAnswer, ask
from worker.errors import PhotochromError
from worker.settings import Settings


@pytest.fixture
def back() -> Iterator[threading.Event]:
    """Until it is set, the share of these tests does not answer."""
    event = threading.Event()
    yield event
    event.set()


def test_an_answer_and_an_error_come_as_they_are(tmp_path: Path) -> None:
    assert ask(tmp_path, lambda: 7) == 7
    with pytest.raises(FileNotFoundError):
        ask(tmp_path, (tmp_path / "away").stat)


def test_a_folder_that_does_not_answer_is_asked_once(tmp_path: Path, back: threading.Event) -> None:
    asked: list[int] = []

    def question(number: int) -> int:
        asked.append(number)
        back.wait()
        return number

    with pytest.raises(NoAnswer, match="no answer for 0 s") as told:
        ask(tmp_path, lambda: question(1), patience_s=0.01)
    assert told.value.filename == str(tmp_path) and told.value.for_s >= 0.01
    with pytest.raises(NoAnswer):
        ask(tmp_path, lambda: question(2), patience_s=0.01)
    assert asked == [1]
    assert ask(tmp_path / "beside", lambda: 3) == 3
    back.set()
    assert ask(tmp_path, lambda: question(4), patience_s=60) == 4
    assert asked == [1, 4]


def test_a_question_that_may_take_long_is_no_silence(tmp_path: Path, back: threading.Event) -> None:
    with pytest.raises(NoAnswer):
        ask(tmp_path, back.wait, patience_s=0.01, what="walk")
    assert ask(tmp_path, lambda: 7, patience_s=60) == 7
    with pytest.raises(NoAnswer):
        ask(tmp_path, lambda: 8, patience_s=0.01, what="walk")


def test_folders_that_have_answered_are_forgotten(tmp_path: Path) -> None:
    for number in range(3):
        ask(tmp_path / str(number), lambda: 7)
    assert not any(folder.startswith(bytes(tmp_path)) for folder, _ in answers._asked)


def test_a_path_is_taken_as_written_where_a_folder_does_not_answer(
    tmp_path: Path, back: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("scans")
    link = bytes(tmp_path / "link")
    assert answers.real_path(link) == bytes(tmp_path / "scans")
    monkeypatch.setattr(answers, "PATIENCE_S", 0.01)
    with pytest.raises(NoAnswer):
        ask(link, back.wait, patience_s=0.01)
    assert answers.real_path(link) == link


def test_the_doctor_names_an_output_that_does_not_answer(
    tmp_path: Path, back: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "output"
    monkeypatch.setattr(
        examine, "ask", lambda folder, question: ask(folder, question, 0.01 if folder == silent else 60)
    )
    with pytest.raises(NoAnswer):
        ask(silent, back.wait, patience_s=0.01)
    with pytest.raises(PhotochromError, match=r"output does not answer \(no answer for"):
        examine._disk(Settings(inbox=tmp_path / "inbox", output=silent, state_dir=tmp_path / "state"))
