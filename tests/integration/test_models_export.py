"""An exported version in another installation and a fresh process: the fp16 weights answer as the trained net did."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from versions_made import SMALL

from model.calibrate import predict
from model.config import architecture_from
from model.networks import build_generator
from model.registry import publish_version
from model.weights_file import write_weights

_COLOUR = """
import sys
from pathlib import Path
import numpy as np
from model.colorizer import Colorizer
from model.store import Store
version = Store(Path(sys.argv[1])).open("v2")
np.save(sys.argv[3], Colorizer(version).chroma(np.load(sys.argv[2])))
"""


def test_a_fresh_process_agrees_with_the_net_that_was_trained(tmp_path: Path) -> None:
    keras.utils.set_random_seed(7)
    trained = build_generator(architecture_from(SMALL))
    kernel, bias = trained.layers[-1].get_weights()
    trained.layers[-1].set_weights([kernel * 4, bias])  # colours of some tens, as a trained net's
    write_weights(trained, tmp_path / "g.npz")
    config = {"architecture": SMALL, "serve_size_px": 64, "flip_average": True}
    here, there = tmp_path / "here", tmp_path / "there"
    publish_version(
        tmp_path / "g.npz", here / "models" / "v2", name="v2", saturation=1.0, config=config, discriminator=None
    )
    file = tmp_path / "v2.tar"
    for state, verb, *names in ((here, "export", "v2", str(file)), (there, "import", str(file))):
        command = [sys.executable, "-m", "daemon.cli", "models", verb, *names, "--state-dir", str(state)]
        subprocess.run(command, check=True, timeout=600, capture_output=True)
    light = np.random.default_rng(1).uniform(0, 100, (64, 64)).astype(np.float32)
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
    assert np.abs(served - expected).max() < 0.5
