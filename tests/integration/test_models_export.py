"""An exported version in another installation and a fresh process: the fp16 weights answer as the trained net did."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from skimage import data

from model.calibrate import predict
from model.config import PRESETS
from model.networks import build_generator
from model.registry import publish_version
from model.weights_file import write_weights

#: of the preset that is trained by default: Lite2, the decoder told of the scene
ARCHITECTURE = PRESETS["default"].architecture
SIDE = 256

_COLOUR = """
import sys
from pathlib import Path
import numpy as np
from model.colorizer import Colorizer
from model.store import Store
version = Store(Path(sys.argv[1])).open("v2")
np.save(sys.argv[3], Colorizer(version).chroma(np.load(sys.argv[2])))
"""


def as_if_trained(light: np.ndarray) -> keras.Model:
    """A net in float32 whose BatchNorm layers have seen something, and whose colours are those of a trained one.

    Args:
        light: what it is to colour, L*/50 - 1 `[B, S, S, 1]`; ab comes out with a standard deviation of 30.
    """
    keras.utils.set_random_seed(7)
    net, random = build_generator(ARCHITECTURE), np.random.default_rng(7)
    layers = [layer for layer in net._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(layers) > 40
    for layer in layers:
        spread = [(1, 0.2), (0, 0.2), (0, 0.2), (1, 0.3)]  # gamma, beta, mean, variance
        layer.set_weights(
            [np.abs(random.normal(m, s, w.shape)) if m else random.normal(m, s, w.shape)
             for (m, s), w in zip(spread, layer.get_weights(), strict=True)]
        )  # fmt: skip
    kernel, bias = net.layers[-1].get_weights()
    before_tanh = np.arctanh(np.clip(np.asarray(net(light, training=False)), -0.999999, 0.999999))
    net.layers[-1].set_weights([kernel * (np.arctanh(30 / 110) / before_tanh.std()), bias])
    return net


@pytest.mark.timeout(600)
def test_a_fresh_process_agrees_with_the_net_that_was_trained(tmp_path: Path) -> None:
    gray = cv2.resize(data.camera(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    light = cv2.cvtColor(np.dstack([gray] * 3).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0].copy()
    trained = as_if_trained(light[None, ..., None] / 50 - 1)
    write_weights(trained, tmp_path / "g.npz")
    config = {"architecture": dataclasses.asdict(ARCHITECTURE), "serve_size_px": SIDE, "flip_average": True}
    here, there = tmp_path / "here", tmp_path / "there"
    publish_version(
        tmp_path / "g.npz", here / "models" / "v2", name="v2", saturation=1.0, config=config, discriminator=None
    )
    file = tmp_path / "v2.tar"
    for state, verb, *names in ((here, "export", "v2", str(file)), (there, "import", str(file))):
        command = [sys.executable, "-m", "daemon.cli", "models", verb, *names, "--state-dir", str(state)]
        subprocess.run(command, check=True, timeout=600, capture_output=True)
    np.save(tmp_path / "light.npy", light)
    subprocess.run(
        [sys.executable, "-c", _COLOUR, str(there / "models"), str(tmp_path / "light.npy"), str(tmp_path / "ab.npy")],
        check=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    served = np.load(tmp_path / "ab.npy")
    expected = predict(trained, light[None, ..., None] / 50 - 1)[0]
    assert np.hypot(*np.moveaxis(expected, -1, 0)).mean() > 3
    assert np.abs(expected).max() < 109, "colours at the tanh's end would agree whatever the weights are"
    assert np.abs(served - expected).max() < 0.5
