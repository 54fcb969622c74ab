"""The sidecar has the form that is published, and never takes a foreign file's place."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from worker import derivative, publish, scans, sidecar
from worker.errors import OutputBlocked

ORIGIN = derivative.Origin(source_name="a.tif", source_sha256="a" * 64, model_version="v9", weights_sha256="b" * 64)
TYPES = {"object": dict, "string": str, "integer": int, "number": (int, float), "array": list, "boolean": bool}


class Flat:
    def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
        return np.full((8, 8, 2), 15, np.float32)


def _conforms(value: Any, schema: dict[str, Any], where: str = "$") -> None:
    """The keywords that our schema uses: type, const, enum, required, properties, items."""
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else []:
        assert isinstance(value, TYPES[kind]), where
    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], where
    for name in schema.get("required", []):
        assert name in value, f"{where}.{name}"
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            _conforms(value[name], inner, f"{where}.{name}")
    for item in value if "items" in schema else []:
        _conforms(item, schema["items"], where)


def _derive(root: Path, path: bytes) -> tuple[publish.Published, dict[str, Any]]:
    source = root / "in.tif"
    picture = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    tifffile.imwrite(source, picture, metadata=None, resolution=(300, 300))
    policy = derivative.Policy(strength=0.8)
    with scans.open_scan(source) as scan, publish.Publication(root, b"", job_id=5, claim_no=2) as publication:
        rendered = derivative.render(scan, Flat(), publication.fd, policy=policy, origin=ORIGIN)
        report = derivative.verify(scan, publication.fd)
        published = publication.commit(publication.plan(publish.derivative_names(path, b".tif")))
        now = datetime.datetime.now(datetime.UTC)
        job = sidecar.Job(job_id="5", root=b"/scans", path=path, source_size=source.stat().st_size, device="cpu",
                          started_at=now, finished_at=now)  # fmt: skip
        return published, sidecar.document(scan, rendered, report, policy, ORIGIN, published, job)


@pytest.mark.parametrize("path", [b"a.tif", b"\xff\n.tif", b"x" * 251 + b".tif"])
def test_the_sidecar_has_the_published_form(tmp_path: Path, path: bytes) -> None:
    published, content = _derive(tmp_path, path)
    written = sidecar.write(tmp_path, published, content, claim_no=2)
    assert written == published.path + b".json"
    with open(os.path.join(os.fsencode(tmp_path), written), "rb") as file:
        read = json.load(file)
    _conforms(read, json.loads(sidecar.SCHEMA_FILE.read_text()))
    assert read["derivative"]["sha256"] == published.sha256
    assert read["source"]["x_resolution"] == 300
    assert read["lightness"]["within"] is True
    assert read["parameters"]["strength"] == 0.8
    assert ("path_hex" in read["source"]) == (path == b"\xff\n.tif")


def test_an_older_sidecar_is_replaced_and_a_foreign_file_is_not(tmp_path: Path) -> None:
    published, content = _derive(tmp_path, b"a.tif")
    sidecar.write(tmp_path, published, content, claim_no=1)
    sidecar.write(tmp_path, published, content | {"warnings": ["again"]}, claim_no=2)
    path = tmp_path / "a__color.tif.json"
    assert json.loads(path.read_text())["warnings"] == ["again"]
    path.write_text('{"mine": 1}')
    with pytest.raises(OutputBlocked):
        sidecar.write(tmp_path, published, content, claim_no=3)
    assert path.read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "other"}', '{"schema": "photochrom-sidecar-1"}',
             '{"schema": "photochrom-sidecar-1", "source": {}, "derivative": 1}']
)  # fmt: skip
def test_what_is_no_whole_sidecar_is_not_copied(tmp_path: Path, text: str) -> None:
    """A copy of it would fail, which would be a strike against the scan of the copy."""
    (tmp_path / "a__color.tif.json").write_text(text)
    assert sidecar.read(bytes(tmp_path), b"a__color.tif") is None
