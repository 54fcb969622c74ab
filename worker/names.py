"""Names of derivatives and of the temporary files they grow in. Bytes in, bytes out; nothing here touches a disk."""

import hashlib
import re
import secrets
from typing import Final

#: longest file name on the file systems we meet (ext4, XFS, NTFS, SMB: 255 bytes) less the sidecar's suffix
NAME_BYTES: Final = 250
#: of the file about a derivative, after the derivative's own name
SIDECAR_SUFFIX: Final = b".json"
#: longest form of a version, with the choices of a re-run, in a name
VERSION_MAX_BYTES: Final = 48
#: names we use for files under work; recognised by `is_temporary`
_TEMPORARY: Final = re.compile(rb"\.photochrom-([0-9A-Za-z]{1,40})-([0-9]{1,12})-[0-9a-f]{8}\.part")


def derivative_names(relative: bytes, extension: bytes, *, version: str | None = None) -> tuple[bytes, ...]:
    r"""The names a derivative may take, in order of preference.

    `box/a.tif` -> `box/a__color.tif`, and if that is another file's: `box/a__color~1a2b3c4d.tif`, where the digits are
    the sha256 of the path. A re-run under a named version: `box/a__color@v2.tif`. A stem too long for the file system
    is cut, and then the first name carries the digits as well, so that two long names do not meet.

    Args:
        relative: path of the scan below its root.
        extension: of the derivative, with the dot.
        version: of the model, for a derivative beside an older one.

    Returns:
        Paths below the output root, two (or one, where the first already carries the digits).
    """
    directory, slash, name = relative.rpartition(b"/")
    stem = name.rpartition(b".")[0] or name
    digits = b"~" + hashlib.sha256(relative).hexdigest()[:8].encode()
    tail = b"__color" + (b"@" + _plain(version) if version else b"")
    plain, unique = tail + extension, tail + digits + extension
    room = NAME_BYTES - len(unique)
    cut = stem if len(stem) <= room else _cut(stem, room)
    unique_path = directory + slash + cut + unique
    if cut != stem:
        return (unique_path,)
    return (directory + slash + stem + plain, unique_path)


def _cut(stem: bytes, room: int) -> bytes:
    """At most `room` bytes, not in the middle of a UTF-8 character."""
    end = room
    while end > room - 4 and stem[end] & 0xC0 == 0x80:
        end -= 1
    return stem[:end]


def _plain(version: str) -> bytes:
    """A version's name without characters that file systems or shells dislike; a long one ends in its hash."""
    plain = re.sub(r"[^0-9A-Za-z._-]", "-", version).encode()
    if len(plain) <= VERSION_MAX_BYTES:
        return plain
    return plain[: VERSION_MAX_BYTES - 9] + b"-" + hashlib.sha256(version.encode()).hexdigest()[:8].encode()


def temporary_name(job_id: int | str, claim_no: int) -> bytes:
    """A hidden name for a file under work, unlike any other; says whose it is."""
    job = re.sub(r"[^0-9A-Za-z]", "", str(job_id))[:40] or "x"
    return f".photochrom-{job}-{claim_no}-{secrets.token_hex(4)}.part".encode()


def is_left_by_earlier_claim(name: bytes, job_id: int | str, claim_no: int) -> bool:
    """Whether a file name is that of the same job's temporary file under an older claim, which is void."""
    found = _TEMPORARY.fullmatch(name)
    return found is not None and found[1] == str(job_id).encode() and int(found[2]) < claim_no


def is_temporary(name: bytes) -> bool:
    """Whether a file name is one of `temporary_name`'s."""
    return _TEMPORARY.fullmatch(name) is not None


def owner_of_temporary(name: bytes) -> str | None:
    """Whose a temporary file is, by its name: a job's id, or another word; None for any other file."""
    found = _TEMPORARY.fullmatch(name)
    return found[1].decode() if found is not None else None
