"""The children's logs: a file each, rotated by size, and the lines in them that a person should see."""

import collections
import contextlib
import json
import logging
import re
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

ROTATE_BYTES = 10 * 2**20
KEEP = 3
READ_BYTES = 2**20
ALARMING_LEVELS = frozenset({"warning", "error", "critical"})
#: a level's name after the time in a line that is not ours (Celery, before its logging is set up)
ALARMING = re.compile(r"^\W?\d{4}-\d\d-\d\d.{0,60}\b(WARNING|ERROR|CRITICAL)\b")
WHY_FIELDS = ("reason", "why")  # of `worker.log`: a sentence
#: fields that say nothing more to a person at the terminal
PLAIN_FIELDS = frozenset({"time", "level", "logger", "message", "traceback", "data", *WHY_FIELDS})
SILENT_LOGGERS = frozenset({"py.warnings"})  # for programmers
#: messages that are good news
TOLD = {"worker_ready": "ready, on {device}, with the model {model}"}
LONGEST_CHARS = 300  # of a line on the terminal; the log has the rest
#: what differs between two tellings of the same: ids, counts, times
VARYING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")
REPEAT_S = 60.0  # the same is told once in so long


class ChildLog:
    """Follows one log file. The child holds it open for appending, so rotation copies and truncates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0
        self._last = ""
        self._told_s: dict[str, float] = {}
        with contextlib.suppress(OSError):  # `follow` tries again, and tells
            self._make()
            self._read_to = path.stat().st_size  # earlier runs have been told

    @property
    def last_words(self) -> str:
        """The sentence in the last line that `news` read."""
        return _entry(self._last).get("message", self._last)

    def follow(self, now_s: float) -> list[str]:
        """`news`, and rotation where it is due; a log that cannot be read or kept is news too, and ends nothing."""
        told = []
        try:
            told += self.news(now_s)
            self.rotate()
        except OSError as error:
            trouble = f"Its log {self.path} cannot be kept ({error.strerror or error}). Correct disk or permissions."
            told += [trouble] if self._is_new(trouble, now_s) else []
        return told

    def news(self, now_s: float) -> list[str]:
        """What a person should know of the lines written since the last call; `now_s` is monotonic, in seconds.

        One that was told within the last minute is not told again. A file that was removed is made again; the child
        writes to it from its next start on.
        """
        self._told_s = {sense: told_s for sense, told_s in self._told_s.items() if now_s - told_s < REPEAT_S}
        if not self.path.exists():
            self._make()
            self._read_to = 0
        with self.path.open("rb") as file:
            if file.seek(0, 2) < self._read_to:
                self._read_to = 0
            file.seek(self._read_to)
            read = file.read(READ_BYTES)
        if len(read) < READ_BYTES or b"\n" in read:
            read = read[: read.rfind(b"\n") + 1]  # the rest of a line comes later
        self._read_to += len(read)
        lines = [line for line in read.decode(errors="replace").splitlines() if line.strip()]
        self._last = lines[-1] if lines else self._last
        return [told for line in lines if (told := _told(line)) and self._is_new(told, now_s)]

    def _is_new(self, told: str, now_s: float) -> bool:
        sense = VARYING.sub("", told)
        is_new = sense not in self._told_s
        self._told_s.setdefault(sense, now_s)
        return is_new

    def rotate(self, limit_bytes: int = ROTATE_BYTES) -> bool:
        """Keeps the last three parts as `.1`, `.2`, `.3` once the file is too large; whether it did.

        What the child writes between copy and truncation is lost: a few lines every ten megabytes. On a full disk the
        newest part is lost: a child that goes on writing needs the room more.
        """
        if self.path.stat().st_size < limit_bytes:
            return False
        for number in range(KEEP, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number - 1).replace(self._numbered(number))
        try:
            shutil.copyfile(self.path, self._numbered(1))
        except OSError as error:
            logger.warning("A part of the log %s is lost: it cannot be copied (%s).", self.path, error.strerror)
            self._numbered(1).unlink(missing_ok=True)
        with self.path.open("r+b") as file:
            file.truncate(0)
        self._read_to = 0
        return True

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _entry(line: str) -> dict[str, str]:
    """The fields of a line of `worker.log`; empty for one that is not ours."""
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return {name: str(value) for name, value in entry.items()}
    return {}


def _told(line: str) -> str:
    entry = _entry(line)
    if good := TOLD.get(entry.get("message", "")):
        return good.format_map(collections.defaultdict(str, entry))
    if entry.get("level") in ALARMING_LEVELS and entry.get("logger") not in SILENT_LOGGERS:
        details = ", ".join(f"{name} {value}" for name, value in entry.items() if name not in PLAIN_FIELDS)
        first, _, _ = entry.get("message", "").strip().partition("\n")
        why = next((f": {entry[name]}" for name in WHY_FIELDS if name in entry), "")
        return (f"{entry['level']}: {first}{why}" + (f" ({details})" if details else ""))[:LONGEST_CHARS]
    return line[:LONGEST_CHARS] if not entry and ALARMING.match(line) else ""
