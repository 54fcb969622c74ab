import json

import numpy as np
import pytest
from versions_made import ARCHITECTURE, SMALL

from model.networks import build_discriminator, build_generator
from model.registry import (
    SHIPPED,
    WeightsError,
    check_discriminator,
    load_generator,
    open_version,
    publish_version,
    sha256_of,
    shipped,
    weights_path,
)
from model.weights_file import write_weights


@pytest.fixture
def version(tmp_path):
    net = build_generator(ARCHITECTURE)
    write_weights(net, tmp_path / "g.npz")
    config = {"architecture": SMALL, "serve_size_px": 64, "flip_average": True}
    return publish_version(
        tmp_path / "g.npz", tmp_path / "v1", name="v1", saturation=1.2, config=config, discriminator=None
    )


def test_a_published_version_loads_as_it_was_saved(version):
    assert (version.name, version.serve_size_px, version.saturation, version.flip_average) == ("v1", 64, 1.2, True)
    light = np.zeros((1, 64, 64, 1), np.float32)
    first, second = (np.asarray(load_generator(version)(light, training=False)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_version_is_never_changed(version):
    with pytest.raises(WeightsError, match="never changed"):
        publish_version(
            weights_path(version), version.directory, name="v1", saturation=1.0, config={}, discriminator=None
        )


def test_weights_of_another_sha256_are_refused_before_loading(version):
    path = weights_path(version)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="not those that version v1"):
        load_generator(version)
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_generator(version)


def test_weights_for_another_architecture_are_refused(version, tmp_path):
    write_weights(build_discriminator(), tmp_path / "d.npz")
    config = {"architecture": SMALL, "serve_size_px": 64}
    with pytest.raises(WeightsError, match="another architecture"):
        publish_version(
            tmp_path / "d.npz", tmp_path / "v2", name="v2", saturation=1.0, config=config, discriminator=None
        )
    assert not (tmp_path / "v2").exists()


def test_the_discriminator_is_recorded_and_checked(version, tmp_path):
    write_weights(build_discriminator(), tmp_path / "d.npz")
    made = publish_version(
        weights_path(version), tmp_path / "v2", name="v2", saturation=1.0,
        config={"architecture": SMALL, "serve_size_px": 64}, discriminator=tmp_path / "d.npz",
    )  # fmt: skip
    path = made.directory / "discriminator.npz"
    assert made.config["discriminator"] == {"file": "discriminator.npz", "sha256": sha256_of(path)}
    assert "discriminator" not in version.config
    check_discriminator(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="not the one that its version was published with"):
        check_discriminator(path)
    check_discriminator(path.rename(tmp_path / "v2" / "other.npz"))  # the record speaks of another file


def test_a_discriminator_without_a_record_passes(version, tmp_path):
    """Outside a version's folder, in the folder of an older release, and where there is none at all."""
    for folder in (tmp_path, version.directory):
        (folder / "discriminator.npz").write_bytes(b"weights")
        check_discriminator(folder / "discriminator.npz")
    check_discriminator(tmp_path / "absent" / "discriminator.npz")


@pytest.mark.parametrize(
    "change",
    [{"serve_size_px": 50}, {"saturation": 0}, {"saturation": "strong"}, {"weights": {}}, {"architecture": {"x": 1}}],
)
def test_a_broken_record_is_refused(version, change):
    path = version.directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError):
        load_generator(open_version(version.directory))


def test_a_missing_or_unreadable_record_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"config\.json"):
        open_version(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        open_version(tmp_path)


def test_the_shipped_version_is_small_and_whole():
    version = shipped()
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*.npz")) <= 40e6
    assert weights_path(version).stat().st_size <= 25e6
    discriminator = version.directory / "discriminator.npz"
    assert discriminator.stat().st_size <= 15e6
    assert version.config["discriminator"]["sha256"] == sha256_of(discriminator)
    generator = load_generator(version)
    assert all(np.isfinite(np.asarray(w)).all() for w in generator.weights)
