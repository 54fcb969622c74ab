"""Lists of checksums, as sha256sum(1) writes them and as other programs do."""

import codecs
import os
import re
from typing import Final

from worker.tables import display

#: a path is as it is up to the line's end: bytes, which need be no UTF-8
_LINE: Final = re.compile(rb"(?P<escaped>\\?)(?P<sha256>[0-9A-Fa-f]{64}) [ *](?P<path>.+)", re.DOTALL)


def parse_manifest(content: bytes) -> dict[bytes, str]:
    r"""Path → sha256, by the lines of sha256sum(1): `<64 hex>  name`; ` *` is binary, `\` leads escaped names.

    Empty lines, comments (`#`), line ends and the byte order mark of Windows mean nothing, nor does `./` in a path.

    Raises:
        ValueError: a line is none of these, names a path that leads out of the batch, or contradicts another one.
    """
    listed: dict[bytes, str] = {}
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line.strip() or line.startswith(b"#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"line {number} is not as sha256sum writes it")
        path, sha256 = found["path"], found["sha256"].decode().lower()
        if found["escaped"]:
            path = re.sub(rb"\\(.)", lambda escape: {b"n": b"\n", b"r": b"\r"}.get(escape[1], escape[1]), path)
        if path.startswith(b"/") or b".." in path.split(b"/"):
            raise ValueError(f"line {number} leads out of the folder")
        path = os.path.normpath(path)
        if listed.setdefault(path, sha256) != sha256:
            raise ValueError(f"line {number} says another checksum of {display(path)} than a line before")
    return listed
