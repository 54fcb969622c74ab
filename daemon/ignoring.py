r"""`.photochromignore`: what an operator wants left alone, by the rules that everybody knows from `.gitignore`.

One pattern a line; `#` begins a comment, `!` takes back what an earlier line ignored, the last line that fits decides.
A slash at the end: directories only. A slash elsewhere: the pattern starts at the directory of the file, else it fits
at any depth. `*` and `?` stop at slashes, `**` does not (gitignore(5)). An ignored directory is not looked into.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from typing import Final

NAME: Final = b".photochromignore"
#: longer ones are read to here; nobody writes so many patterns
MAX_BYTES: Final = 1 << 18


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of an ignore file.

    Attributes:
        text: as it is written there.
        fits: on a path below the file's directory.
        directories_only: whether it is about directories alone.
        takes_back: whether it is a line with `!`.
    """

    text: str
    fits: re.Pattern[bytes]
    directories_only: bool
    takes_back: bool


def parse(content: bytes) -> list[Rule]:
    """The rules of an ignore file, in order."""
    return [rule for line in content.splitlines() if (rule := _rule(line))]


def _rule(line: bytes) -> Rule | None:
    pattern = line if line.endswith(b"\\ ") else line.rstrip()
    if not pattern or pattern.startswith(b"#"):
        return None
    text = os.fsdecode(pattern)
    takes_back = pattern.startswith(b"!")
    pattern = pattern[takes_back:]
    directories_only = pattern.endswith(b"/")
    pattern = pattern.rstrip(b"/")
    if not pattern:
        return None
    anchored = b"/" in pattern
    expression = _expression(pattern.lstrip(b"/"))
    if not anchored:
        expression = rb"(?:.*/)?" + expression
    return Rule(text, re.compile(expression, re.DOTALL), directories_only, takes_back)


_TOKEN: Final = re.compile(rb"\*\*/|/\*\*\Z|\*\*|\*|\?|\[!?\]?[^\]/]*\]|\\.|.", re.DOTALL)
_MEANING: Final = {b"**/": rb"(?:.*/)?", b"/**": rb"/.*", b"**": rb".*", b"*": rb"[^/]*", b"?": rb"[^/]"}


def _expression(pattern: bytes) -> bytes:
    """A glob as a regular expression."""
    parts = []
    for token in _TOKEN.findall(pattern):
        if token in _MEANING:
            parts.append(_MEANING[token])
        elif token.startswith(b"[") and len(token) > 2:
            inside = token[1:-1].replace(b"\\", b"\\\\")
            negated, inside = inside.startswith(b"!"), inside.removeprefix(b"!")
            parts.append(b"[" + (b"^" if negated else b"") + re.sub(rb"([\[\]^])", rb"\\\1", inside) + b"]")
        else:
            parts.append(re.escape(token[1:] if len(token) == 2 and token.startswith(b"\\") else token))
    return b"".join(parts)


@functools.lru_cache(maxsize=4096)
def _parsed(content: bytes) -> tuple[Rule, ...]:
    return tuple(parse(content))


class Ignored:
    """The rules that hold in one directory of a root: its own and those of the directories above it."""

    def __init__(self, root: bytes, directory: bytes) -> None:
        """`directory` is below the root, b"" for the root itself."""
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
    """The pattern by which a path below a root, or a directory on the way to it, is ignored."""
    for level in (*_levels(path), path):
        if not level:
            continue
        rules = Ignored(root, os.path.dirname(level))
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
    """The rules of one directory's file; none where there is none, or where it cannot be read."""
    try:
        fd = os.open(os.path.join(root, directory, NAME), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ()
    try:
        return _parsed(os.read(fd, MAX_BYTES))
    except OSError:
        return ()
    finally:
        os.close(fd)
