"""Whose choice counts: the job's over its folder's over everybody's."""

from pathlib import Path

import pytest

from worker.policy import Policy, policy_for
from worker.settings import RootSettings, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    plates = RootSettings(path=tmp_path / "in", output=tmp_path / "out", name="plates", strength=0.5, output_depth="16")
    return Settings(roots=(plates,), strength=0.8, output_format="tiff", tiff_compression="zstd")


def test_settings_for_all(settings: Settings) -> None:
    assert policy_for(settings) == Policy(kind="tiff", tiff_compression="zstd", strength=0.8)
    assert policy_for(Settings()) == Policy()


def test_a_folder_may_differ(settings: Settings) -> None:
    assert policy_for(settings, "plates") == Policy(kind="tiff", tiff_compression="zstd", strength=0.5, depth="16")


def test_a_job_may_differ_from_its_folder(settings: Settings) -> None:
    chosen = policy_for(settings, "plates", {"strength": 0.0, "tone": "preserve", "force": True})
    assert (chosen.strength, chosen.tone, chosen.depth) == (0.0, "preserve", "16")
