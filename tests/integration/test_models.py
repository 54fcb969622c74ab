"""Versions that serve: switching between jobs, what happens to broken ones, and the verbs."""

import json
import logging
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from versions_made import make_version, ship, truncate

from daemon.cli import main
from model.registry import WeightsError, open_version
from model.store import Store
from worker import fitness, serving, versions
from worker.db import Database
from worker.errors import VersionUnusable, WeightsBroken
from worker.learning_tables import VersionState
from worker.serving import Serving

LIGHT = np.linspace(0, 100, 64, dtype=np.float32)[None].repeat(64, axis=0)
LIGHT[16:40, 16:40] = 80  # edges: a smooth gradient alone shows nothing and stays neutral


@pytest.fixture
def models(tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped version, and two more in the store that colour otherwise."""
    ship(monkeypatch, tmp_path / "shipped", seed=1)
    for number, name in enumerate(("v2", "v3")):
        make_version(state_dir / "models", name, seed=2, tint=0.3 * (number + 1))
    return state_dir / "models"


def promote(database: Database, store: Store, name: str) -> None:
    with database.writing() as session:
        for each in ("shipped-one", name):
            version = store.open(each)
            versions.record(session, each, directory="", weights_sha256=version.weights_sha256,
                            state=VersionState.CANDIDATE)  # fmt: skip
        versions.promote(session, name, shipped="shipped-one", actor="test", reason="")


def test_a_worker_follows_the_champion_between_jobs_and_back(models: Path, database: Database) -> None:
    store = Store(models)
    bench = Serving(store, database)
    first = bench.champion()
    assert first.version.name == "shipped-one"
    assert (models / "shipped-one" / "generator.npz").is_file()  # kept, for the day another version ships
    before = first.chroma(LIGHT)
    promote(database, store, "v2")
    assert bench.champion().version.name == "v2"
    assert np.abs(bench.champion().chroma(LIGHT) - before).max() > 1
    assert bench.named("shipped-one") is first  # a job that is bound to it
    promote(database, store, "shipped-one")
    np.testing.assert_array_equal(bench.champion().chroma(LIGHT), before)
    assert bench.named("v3").version.name == "v3"
    assert len(bench._loaded) <= serving.HELD


def test_a_truncated_champion_does_not_serve_and_the_one_before_goes_on(
    models: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(models)
    bench = Serving(store, database)
    bench.champion()
    truncate(store.open("v2"))
    promote(database, store, "v2")
    with caplog.at_level(logging.ERROR):
        assert bench.champion().version.name == "shipped-one"
    assert "version_does_not_load" in caplog.text
    with database.reading() as session:
        assert [name for name, why in versions.problems(session) if "fresh process" in why or "not those" in why] == [
            "v2"
        ]
    assert Serving(store, database).champion().version.name == "shipped-one"  # a restart comes to the same end
    with pytest.raises(VersionUnusable, match="v2"):
        bench.named("v2")


def test_a_version_of_a_newer_format_is_left_to_newer_workers(models: Path, database: Database) -> None:
    config = models / "v3" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 2}))
    with pytest.raises(WeightsError, match="Upgrade Photochrom"):
        open_version(models / "v3")
    bench = Serving(Store(models), database)
    bench.champion()
    with database.writing() as session:
        for name in ("shipped-one", "v3"):
            versions.record(session, name, directory="", weights_sha256=name * 5, state=VersionState.CANDIDATE)
        versions.promote(session, "v3", shipped="shipped-one", actor="test", reason="")
    assert bench.champion().version.name == "shipped-one"


def test_without_any_version_that_loads_the_worker_says_so(models: Path, database: Database) -> None:
    truncate(Store(models).open("shipped-one"))
    with pytest.raises(WeightsBroken, match="No version"):
        Serving(Store(models), database).champion()


def test_a_fresh_process_examines_a_version(models: Path) -> None:
    found = fitness.check(models / "v2")
    assert found.problem == ""
    assert {f.name for f in found.findings} >= {
        "|ab|",
        "|ΔL*| at 8 bit",
        "|ΔL*| at 16 bit",
        "chroma of a constant gray",
    }
    assert not [name for name in found.failed if "ΔL" in name]
    assert found.weights_bytes > 1000 and found.latency_s > 0
    truncate(open_version(models / "v2"))
    assert "not those" in fitness.check(models / "v2").problem


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def test_the_verbs_from_an_empty_installation_to_rollback(
    models: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitness, "check", fitness.examine)  # the fresh process is tested above
    rows = json.loads(run("models", "list", "--json"))
    assert {row["version"]: row["alias"] for row in rows} == {"shipped-one": "champion", "v2": None, "v3": None}
    assert not (state_dir / "photochrom.db").exists()  # a question makes nothing
    assert "shipped-one was" in run("models", "promote", "v2", "--force", "--reason", "brighter")
    assert "already" in run("models", "promote", "v2", "--force", code=2)
    assert "v3 is the champion now, v2 was" in run("models", "promote", "v3", "--force")
    assert "v2 is the champion again" in run("models", "rollback")
    assert "shipped-one is the champion again" in run("models", "rollback")
    assert "no champion before" in run("models", "rollback", code=2)
    shown = json.loads(run("models", "show", "v2"))
    assert [event["action"] for event in shown["events"]] == ["promote", "promote", "rollback", "rollback"]
    assert shown["events"][0]["reason"] == "brighter"
    truncate(open_version(models / "v3"))
    assert "not fit to serve" in run("models", "promote", "v3", code=2)
    assert next(r for r in json.loads(run("models", "list", "--json")) if r["alias"])["version"] == "shipped-one"


def doctor(code: int) -> dict[str, str]:
    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    (found,) = (finding for finding in findings if finding["what"] == "versions")
    assert found["exit_code"] == code and found["ok"] is (code == 0), found
    return found


def test_doctor_finds_broken_versions_and_says_what_to_do(models: Path, state_database: Database) -> None:
    store = Store(models)
    assert doctor(0)["says"].startswith("3 in ")
    promote(state_database, store, "v2")
    truncate(store.open("v2"))
    (models / "v3" / "generator.npz").unlink()
    says = doctor(11)["says"]
    assert "version v2: The weights" in says and "are not those" in says
    assert "It is the champion: `photochrom models rollback` now" in says
    assert "version v3: The weights" in says and "Nothing names it: restore its folder, or remove it." in says
    with state_database.writing() as session:
        versions.promote(session, "shipped-one", shipped="shipped-one", actor="test", reason="", action="rollback")
    assert "champion:" not in doctor(11)["says"]
    shutil.rmtree(models / "v2")  # recorded, and gone
    assert "There is no version 'v2'" in doctor(11)["says"]
    assert CliRunner().invoke(main, ["doctor"]).exit_code != 0


def test_doctor_compares_a_version_with_the_record_too(models: Path, state_database: Database) -> None:
    """Whoever puts other weights into a folder can write their sha256 into its `config.json` as well."""
    promote(state_database, Store(models), "v2")
    shutil.rmtree(models / "v2")
    make_version(models, "v2", seed=9)
    assert "are not those of the record" in doctor(11)["says"]
    config = models / "v3" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 99}))
    assert "Upgrade Photochrom" in doctor(11)["says"]


def test_a_version_travels_to_another_installation(models: Path, state_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "v2.tar"
    run("models", "export", "v2", str(file))
    run("models", "export", "v2", str(file), code=7)
    other = Store(tmp_path / "elsewhere")
    taken = other.take(file)
    assert taken.weights_sha256 == open_version(models / "v2").weights_sha256
    with pytest.raises(WeightsError, match="already"):
        other.take(file)
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(models / "v2" / "config.json", "../v9/config.json")
    assert "no exported version" in run("models", "import", str(tmp_path / "bad.tar"), code=11)
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["v2"]


def test_a_tampered_file_brings_nothing_in(models: Path, state_dir: Path, state_database: Database, tmp_path: Path):
    file = tmp_path / "v2.tar"
    promote(state_database, Store(models), "v2")
    run("models", "export", "v2", str(file))
    genuine = file.read_bytes()
    torn = bytearray(genuine)
    torn[len(torn) // 2] ^= 0xFF
    file.write_bytes(torn)
    elsewhere = Store(tmp_path / "elsewhere")
    with pytest.raises(WeightsError):
        elsewhere.take(file)
    file.write_bytes(genuine[: len(genuine) // 2])
    with pytest.raises(WeightsError):
        elsewhere.take(file)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    # other weights under a known name, with a sha256 that fits them
    shutil.rmtree(models / "v2")
    other = make_version(tmp_path / "made", "v2", seed=7)
    file.unlink()
    Store(tmp_path / "made").export(other, file)
    assert "other weights" in run("models", "import", str(file), code=11)
    assert not (models / "v2").exists()
    file.write_bytes(genuine)
    assert "is here" in run("models", "import", str(file))
    assert open_version(models / "v2").weights_sha256 == versions_known(state_database)["v2"]


def versions_known(database: Database) -> dict[str, str]:
    with database.reading() as session:
        return {row.version: row.weights_sha256 for row in versions.all_versions(session)}


def test_a_version_of_a_newer_format_is_neither_promoted_nor_imported(models: Path, tmp_path: Path) -> None:
    config = models / "v3" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 2}))
    assert "Upgrade Photochrom" in run("models", "promote", "v3", code=11)
    with tarfile.open(tmp_path / "v3.tar", "w") as archive:
        for path in (models / "v3").iterdir():
            archive.add(path, f"v3/{path.name}")
    shutil.rmtree(models / "v3")
    assert "Upgrade Photochrom" in run("models", "import", str(tmp_path / "v3.tar"), code=11)
    assert not (models / "v3").exists()
    assert next(r for r in json.loads(run("models", "list", "--json")) if r["alias"])["version"] == "shipped-one"
