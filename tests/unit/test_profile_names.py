"""What an embedded profile calls itself is a stranger's text: it neither fills the record nor moves a cursor."""

import struct

import pytest
from profiles_made import gray_profile

from worker.profiles import describe


def _called(name: bytes) -> bytes:
    """A profile with another tag as its description."""
    made = gray_profile(2.2)
    offset = len(made)
    return made[:132] + struct.pack(">4sII", b"desc", offset, len(name)) + made[144:] + name


def _of_v2(name: bytes) -> bytes:
    return _called(b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0")


def _of_v4(name: str) -> bytes:
    text = name.encode("utf-16-be", "surrogatepass")
    return _called(b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text)


@pytest.mark.parametrize(("profile", "name"), [
    (_of_v2(b"Dot Gain 20%"), "Dot Gain 20%"), (_of_v4("Gris ä"), "Gris ä"),
    (_of_v2(b"\x1b[2J\x9b31mred\n"), "[2J31mred"), (_of_v4("\x00\ud800\u202e\x1b[Hx"), "\ufffd[Hx"),
    (_of_v2(b"\x1b" * 9), "unnamed"), (_of_v2(b""), "unnamed"),
    (_of_v2(b"x" * 10**7), "x" * 100), (_of_v4("x" * 10**7), "x" * 100),
])  # fmt: skip
def test_it_prints_and_is_short(profile: bytes, name: str) -> None:
    assert describe(profile) == name
