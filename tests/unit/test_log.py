"""Logs: one JSON object a line, whatever is in it."""

import json
import logging
import subprocess
import sys

from worker.log import JsonFormatter, job_context


def _line(
    message: str = "taken", level: int = logging.INFO, exc_info: object = None, **extra: object
) -> dict[str, object]:
    record = logging.getLogger("t").makeRecord("t", level, __file__, 1, message, (), exc_info, extra=extra)  # type: ignore[arg-type]
    text = JsonFormatter().format(record)
    assert "\n" not in text
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_a_line_says_when_where_and_what() -> None:
    line = _line(path="a\nb", level=logging.WARNING)
    assert (line["level"], line["logger"], line["message"], line["path"]) == ("warning", "t", "taken", "a\nb")
    assert str(line["time"]).endswith("+00:00")
    assert "job_id" not in line


def test_the_job_goes_into_every_line_of_its_context_and_no_other() -> None:
    with job_context(7):
        assert _line()["job_id"] == 7
        with job_context(8):
            assert _line()["job_id"] == 8
        assert _line()["job_id"] == 7
    assert "job_id" not in _line()


def test_an_extra_of_any_kind_is_written() -> None:
    assert _line(directory=b"a\xff")["directory"] == "b'a\\xff'"


def test_an_exception_comes_with_its_traceback() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        assert "ValueError: no" in str(_line(exc_info=sys.exc_info())["traceback"])


def test_configured_logs_go_to_stderr_as_json_even_with_odd_bytes() -> None:
    program = (
        "import logging; from worker import log; log.configure('info'); log.configure('info')\n"
        "logging.getLogger('x').info('odd \\udcff', extra={'path': 'a\\udcff'}); logging.getLogger('x').debug('no')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["path"] == "a\udcff"
