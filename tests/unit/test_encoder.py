import collections
import io
import pickle
import struct

import numpy as np
import pytest

from model.config import Architecture
from model.encoder import PACKAGES, EncoderError, load_encoder, published_weights, read_torch_weights
from model.networks import build_generator, encoder_layers


@pytest.mark.parametrize("kind", PACKAGES)
def test_published_weights_fill_every_layer_of_the_encoder(kind):
    pytest.importorskip(PACKAGES[kind])
    weights = published_weights(kind)
    generator = build_generator(Architecture(kind=kind, sees_scene=True))
    wanted = [layer for layer in encoder_layers(generator) if layer.weights]
    assert load_encoder(generator, weights) == len(wanted)
    stem = generator.get_layer("_conv_stem").get_weights()[0]
    np.testing.assert_array_equal(stem, weights["_conv_stem.weight"].transpose(2, 3, 1, 0))
    depthwise = generator.get_layer("_blocks.4._depthwise_conv").get_weights()[0]
    assert depthwise.shape[:2] == (5, 5)
    np.testing.assert_array_equal(depthwise[:, :, 7, 0], weights["_blocks.4._depthwise_conv.weight"][7, 0])


def test_the_encoder_sees_what_it_was_trained_to_see():
    """The features of a picture differ from those of noise: running statistics and scaling are right."""
    pytest.importorskip(PACKAGES["lite2_unet"])
    weights = published_weights("lite2_unet")
    assert len(weights) > 200
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert float(np.abs(weights["_conv_stem.weight"]).mean()) > 0.01


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def torch_file(tensors: object) -> io.BytesIO:
    file = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, file, 2)
    pickle.dump(tensors, file, 2)
    pickle.dump([], file, 2)
    return file


def test_a_file_that_names_anything_else_is_refused(capsys):
    file = torch_file(collections.OrderedDict(weight=_Evil()))
    file.seek(0)
    with pytest.raises(EncoderError, match="no need of"):
        read_torch_weights(file)
    assert capsys.readouterr().out == ""


def test_a_cut_file_is_refused():
    with pytest.raises(EncoderError, match="install the package again"):
        read_torch_weights(io.BytesIO(torch_file(collections.OrderedDict()).getvalue()[:20]))
    with pytest.raises(EncoderError, match="install the package again"):
        read_torch_weights(io.BytesIO(struct.pack("<q", 5)))


def test_a_kind_without_published_weights_is_named():
    with pytest.raises(EncoderError, match="plain_unet"):
        published_weights("plain_unet")
