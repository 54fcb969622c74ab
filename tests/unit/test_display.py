"""Any file name has a form that prints, that every database and JSON takes, and that no other name has."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.tables import display

#: bytes whose meaning changes with what stands beside them
TRICKY = st.sampled_from(
    [b"\\", b"x", b"n", b"u", b"00", b"85", b"\n", b"\x85", b"\xc2", b"\xa0", b"\xff", "\u2028".encode()]
)
NAMES = st.binary(max_size=40) | st.lists(TRICKY, max_size=8).map(b"".join) | st.text(max_size=20).map(str.encode)


@given(NAMES)
def test_every_name_prints(name: bytes) -> None:
    shown = display(name)
    assert all(char.isprintable() for char in shown)
    assert shown.encode().decode() == shown
    assert json.loads(json.dumps(shown)) == shown


@given(NAMES, NAMES)
def test_two_names_never_look_alike(one: bytes, other: bytes) -> None:
    assert (display(one) == display(other)) is (one == other)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"1923 harbour.tif", "1923 harbour.tif"),
        ("Zürich – Größe.tif".encode(), "Zürich – Größe.tif"),
        (b"Z\xfcrich.tif", r"Z\xfcrich.tif"),
        (b"a\nb", r"a\nb"),
        (b"a\\nb", r"a\\nb"),
        (b"\x1b[31m", r"\x1b[31m"),
        ("no\u00a0break".encode(), r"no\u00a0break"),
        (b"no\xa0break", r"no\xa0break"),
    ],
)
def test_names_read_as_people_expect(name: bytes, shown: str) -> None:
    assert display(name) == shown
