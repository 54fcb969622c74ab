"""Fixtures of the end-to-end tests."""

from pathlib import Path

import pytest
from installation import Installation


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path)
    made.inbox.mkdir()
    return made
