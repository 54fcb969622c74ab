"""Small versions of the generator for tests: a net of a few thousand weights, published like a real one."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np

from model import registry
from model.config import Architecture
from model.networks import build_generator
from model.registry import Version, publish_version
from model.weights_file import write_weights

ARCHITECTURE = Architecture(kind="plain_unet", decoder_channels=(8,) * 5, plain_channels=(8,) * 5)
#: as `config.json` has it
SMALL = json.loads(json.dumps(dataclasses.asdict(ARCHITECTURE)))


def make_version(parent: Path, name: str, *, seed: int = 0, tint: float = 0.0) -> Version:
    """A version of 64 px in `parent`/`name`; `tint` is added to the last layer's bias, so that colours differ."""
    keras.utils.set_random_seed(seed)
    net = build_generator(ARCHITECTURE)
    weights = net.get_weights()
    weights[-1] = weights[-1] + np.float32(tint)
    net.set_weights(weights)
    parent.mkdir(parents=True, exist_ok=True)
    source = parent / f".{name}.npz"
    write_weights(net, source)
    config = {"architecture": SMALL, "serve_size_px": 64, "flip_average": True}
    made = publish_version(source, parent / name, name=name, saturation=1.0, config=config, discriminator=None)
    source.unlink()
    return made


def ship(monkeypatch, folder: Path, name: str = "shipped-one", **options) -> Version:
    """Let a made version be the shipped one, in this process."""
    made = make_version(folder, name, **options)
    (folder / "CURRENT").write_text(name)
    monkeypatch.setattr(registry, "SHIPPED", folder)
    return made


def truncate(version: Version) -> None:
    """What a full disk or a broken copy leaves."""
    path = registry.weights_path(version)
    path.write_bytes(path.read_bytes()[:1000])
