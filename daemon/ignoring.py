r"""`.photochromignore`: what an operator wants left alone, by the rules that everybody knows from `.gitignore`.

One pattern a line; `#` begins a comment, `!` takes back what an earlier line ignored, the last line that fits decides.
A slash at the end: directories only. A slash elsewhere: the pattern starts at the directory of the file, else it fits
at any depth. `*` and `?` stop at slashes, `**` does not (gitignore(5)). An ignored directory is not looked into.

Not by pathspec: names here are bytes of no certain encoding, and a pattern with ten stars keeps it busy for seconds
with each long name that almost fits; a watcher may not be stopped by one line of a file that anybody may write.
"""

import codecs
import dataclasses
import errno
import functools
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from worker.tables import display

NAME: Final = b".photochromignore"
#: longer ones are read to here; nobody writes so many patterns
MAX_BYTES: Final = 1 << 18


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of an ignore file.

    Attributes:
        text: as it is written there, with what no text column can hold put into words.
        fits: on a path below the file's directory.
        directories_only: whether it is about directories alone.
        takes_back: whether it is a line with `!`.
    """

    text: str
    fits: re.Pattern[bytes]
    directories_only: bool
    takes_back: bool


def parse(content: bytes) -> list[Rule]:
    """The rules of an ignore file, in order. Nothing is a syntax error: what makes no sense fits nothing."""
    return [rule for line in content.removeprefix(codecs.BOM_UTF8).splitlines() if (rule := _rule(line))]


def _rule(line: bytes) -> Rule | None:
    pattern = line if line.endswith(b"\\ ") else line.rstrip()
    if not pattern or pattern.startswith(b"#"):
        return None
    text = display(pattern)
    takes_back = pattern.startswith(b"!")
    pattern = pattern[takes_back:]
    directories_only = pattern.endswith(b"/")
    pattern = pattern.rstrip(b"/")
    if not pattern:
        return None
    if b"/" not in pattern:
        pattern = b"**/" + pattern
    return Rule(text, re.compile(_expression(pattern.lstrip(b"/")), re.DOTALL), directories_only, takes_back)


#: `**` counts only as a whole part of a path
_ANY_DEPTH: Final = re.compile(rb"(?:\A|(?<=/))\*\*(?:/\*\*)*(?:/|\Z)")
_TOKEN: Final = re.compile(
    rb"\*+|\?|\[[!^]?+(?:\]|\\.|\[:\w+:\]|[^\]/\\])(?:\\.|\[:\w+:\]|[^\]/\\])*\]|\\.|.", re.DOTALL
)
_MEMBER: Final = re.compile(rb"\[:(?P<named>\w+):\]|(?P<low>\\.|[^\\])-(?P<high>\\.|[^\\])|(?P<one>\\.|.)", re.DOTALL)
_NAMED: Final = {
    b"alnum": rb"0-9A-Za-z", b"alpha": rb"A-Za-z", b"blank": rb" \t", b"digit": rb"0-9", b"lower": rb"a-z",
    b"space": rb"\s", b"upper": rb"A-Z", b"xdigit": rb"0-9A-Fa-f", b"punct": rb"!-/:-@\[-`{-~",
}  # fmt: skip


def _expression(pattern: bytes) -> bytes:
    """A glob as a regular expression.

    What stands before the last `*` or `**` is found at the first place where it fits, and that is not reconsidered
    (`(?>…)`): another place could not do better, and trying all of them takes for ever with many stars.
    """
    first, *others = (b"/".join(map(_part, run.split(b"/"))) for run in _ANY_DEPTH.split(pattern))
    if not others:
        return first
    *between, last = others
    sought = b"".join(rb"(?>(?:[^/]+/)*?" + run + rb")" for run in between)
    return first + sought + (rb"(?:[^/]+/)*" + last if last else rb".+")


def _part(glob: bytes) -> bytes:
    """A glob between two slashes as a regular expression."""
    runs = [b""]  # of what stands between stars
    for found in _TOKEN.finditer(glob):
        token = found[0]
        if token == b"[":
            return rb"(?!)"  # never closed: nothing fits, and looking for an end from each further one takes for ever
        if token.startswith(b"*"):
            runs.append(b"")
        else:
            runs[-1] += _one(token)
    first, *others = runs
    if not others:
        return first
    return first + b"".join(rb"(?>[^/]*?" + run + rb")" for run in others[:-1]) + rb"[^/]*" + others[-1]


def _one(token: bytes) -> bytes:
    """What stands for one byte of a name."""
    if token == b"?":
        return rb"[^/]"
    if len(token) > 2:
        negated = token[1:2] in {b"!", b"^"}
        members = b"".join(map(_member, _MEMBER.finditer(token[1 + negated : -1])))
        return rb"(?!/)[^" + members + b"/]" if negated else rb"(?!/)[" + members + b"]" if members else rb"(?!)"
    return re.escape(token[-1:])


def _member(found: re.Match[bytes]) -> bytes:
    """A part of `[…]`; of a range that is upside down git takes the first, and so do we."""
    if found["named"]:
        return _NAMED.get(found["named"], b"")
    if found["high"]:
        low, high = found["low"][-1:], found["high"][-1:]
        return re.escape(low) + b"-" + re.escape(high) if low <= high else re.escape(low)
    return re.escape(found["one"][-1:])


@functools.lru_cache(maxsize=4096)
def _parsed(content: bytes) -> tuple[Rule, ...]:
    return tuple(parse(content))


class Ignored:
    """The rules that hold in one directory of a root: its own and those of the directories above it."""

    def __init__(self, root: bytes, directory: bytes) -> None:
        """`directory` is below the root, b"" for the root itself.

        Raises:
            OSError: an ignore file cannot be read.
        """
        self._levels = [(level, rules) for level in _levels(directory) if (rules := _read(root, level))]

    def by(self, path: bytes, *, directory: bool) -> str | None:
        """The pattern by which a path below the root is ignored, if any; its parents are not asked.

        Args:
            path: below the root, in this directory or below it.
            directory: whether it is one.
        """
        found: Rule | None = None
        for level, rules in self._levels:
            below = path[len(level) + 1 :] if level else path
            for rule in rules:
                if (directory or not rule.directories_only) and rule.fits.fullmatch(below):
                    found = rule
        return None if found is None or found.takes_back else found.text


def by_file(root: bytes, path: bytes, *, directory: bool = False) -> str | None:
    """The pattern by which a path below a root, or a directory on the way to it, is ignored, as far as can be read."""
    for level in (*_levels(path), path):
        if not level:
            continue
        try:
            rules = Ignored(root, os.path.dirname(level))
        except OSError:
            return None
        if pattern := rules.by(level, directory=directory or level != path):
            return pattern
    return None


def _levels(directory: bytes) -> Iterator[bytes]:
    """The directory and those above it, the root (b"") first."""
    yield b""
    parts = directory.split(b"/") if directory else []
    for count in range(1, len(parts) + 1):
        yield b"/".join(parts[:count])


def _read(root: bytes, directory: bytes) -> tuple[Rule, ...]:
    """The rules of one directory's file; none where there is none, or something else has its name.

    Raises:
        OSError: it cannot be read; what it says to leave alone must not be taken meanwhile.
    """
    path = os.path.join(directory, NAME)
    try:
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return ()
        raise _unreadable(path, error) from error
    try:
        content = os.read(fd, MAX_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)
    return _parsed(content if len(content) < MAX_BYTES else content[: content.rfind(b"\n") + 1])


_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENAMETOOLONG})


def _unreadable(path: bytes, error: OSError) -> OSError:
    return OSError(error.errno, f"{error.strerror} ({display(path)})")
