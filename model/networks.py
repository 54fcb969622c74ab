"""Generator (U-Net) and discriminator (PatchGAN) in backend-neutral Keras.

Letters in shapes: B batch, S side of the square picture (a multiple of 32). Light is L*/50 - 1, colour is ab/110.
"""

from typing import Any

import keras
from keras import layers

from model.config import Architecture, ConfigError

#: EfficientNet-Lite (Tan & Le 2019; tensorflow/tpu lite) after its stem: repeats, channels, stride, expansion, kernel;
#: Lite2 is Lite0 with 1.1 times the channels and 1.2 times the blocks
LITE_STAGES = {
    "lite0_unet": (
        (1, 16, 1, 1, 3),
        (2, 24, 2, 6, 3),
        (2, 40, 2, 6, 5),
        (3, 80, 2, 6, 3),
        (3, 112, 1, 6, 5),
        (4, 192, 2, 6, 5),
        (1, 320, 1, 6, 3),
    ),
    "lite2_unet": (
        (1, 16, 1, 1, 3),
        (3, 24, 2, 6, 3),
        (3, 48, 2, 6, 5),
        (4, 88, 2, 6, 3),
        (4, 120, 1, 6, 5),
        (5, 208, 2, 6, 5),
        (1, 352, 1, 6, 3),
    ),
}
#: channels of EfficientNet-Lite's last layer before its classifier: what ImageNet's classes are told apart by
SCENE_CHANNELS = 1280

#: a symbolic tensor of the graph under construction
Tensor = Any


def _normalised(x: Tensor, name: str) -> Tensor:
    return layers.BatchNormalization(epsilon=1e-3, name=name)(x)


def _inverted_residual(x: Tensor, block: int, out: int, stride: int, expand: int, kernel: int) -> Tensor:
    """MobileNetV2's block (Sandler et al. 2018) with ReLU6 and the layer names of the published weights."""
    channels, prefix, y = int(x.shape[-1]), f"_blocks.{block}.", x
    if expand != 1:
        y = layers.Conv2D(channels * expand, 1, use_bias=False, name=prefix + "_expand_conv")(y)
        y = layers.ReLU(6.0)(_normalised(y, prefix + "_bn0"))
    y = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=prefix + "_depthwise_conv")(y)
    y = layers.ReLU(6.0)(_normalised(y, prefix + "_bn1"))
    y = _normalised(layers.Conv2D(out, 1, use_bias=False, name=prefix + "_project_conv")(y), prefix + "_bn2")
    return layers.Add()([y, x]) if stride == 1 and channels == out else y


def _lite_encoder(rgb: Tensor, kind: str) -> list[Tensor]:
    """`[B, S, S, 3]` -> features at strides 2, 4, 8, 16, 32."""
    x = layers.Conv2D(32, 3, 2, "same", use_bias=False, name="_conv_stem")(rgb)
    x = layers.ReLU(6.0)(_normalised(x, "_bn0"))
    block, stages = 0, []
    for repeats, out, stride, expand, kernel in LITE_STAGES[kind]:
        for repeat in range(repeats):
            x = _inverted_residual(x, block, out, stride if repeat == 0 else 1, expand, kernel)
            block += 1
        stages.append(x)
    return [stages[0], stages[1], stages[2], stages[4], stages[6]]


def _plain_encoder(light: Tensor, channels: tuple[int, ...]) -> list[Tensor]:
    """`[B, S, S, 1]` -> features at strides 2, 4, 8, 16, 32 by 4x4 convolutions, as in pix2pix."""
    x, features = light, []
    for depth, width in enumerate(channels):
        x = layers.Conv2D(width, 4, 2, "same", use_bias=False, name=f"p{depth}c")(x)
        x = layers.LeakyReLU(0.2)(layers.BatchNormalization(name=f"p{depth}b")(x))
        features.append(x)
    return features


def _conv(x: Tensor, channels: int, name: str) -> Tensor:
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=name + "c")(x)
    return layers.ReLU()(layers.BatchNormalization(name=name + "b")(x))


def _scene(x: Tensor, channels: int) -> Tensor:
    """Features at stride 32 -> one vector of the whole scene `[B, 1, 1, channels]` (Iizuka et al. 2016)."""
    x = layers.Conv2D(SCENE_CHANNELS, 1, use_bias=False, name="_conv_head")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(layers.ReLU(6.0)(_normalised(x, "_bn1")))
    return layers.Conv2D(channels, 1, kernel_initializer="zeros", name="scene")(x)


def _decoder(features: list[Tensor], channels: tuple[int, ...], sees_scene: bool) -> Tensor:
    """Features at strides 2 to 32 -> ab/110 at stride 2; resize, then convolve: no checkerboard (Odena et al. 2016)."""
    x = layers.Conv2D(channels[0], 3, padding="same", use_bias=False, name="d0c")(features[-1])
    if sees_scene:
        x = layers.Add()([x, _scene(features[-1], channels[0])])
    x = layers.ReLU()(layers.BatchNormalization(name="d0b")(x))
    for depth, (skip, width) in enumerate(zip(reversed(features[:-1]), channels[1:], strict=True)):
        x = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(x), skip])
        x = _conv(x, width, f"u{depth}a")
        if depth < len(features) - 2:
            x = _conv(x, width, f"u{depth}b")
    # a tenth of Glorot's spread: training starts near gray, where colours of any size would first have to be unlearned
    near_gray = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
    return layers.Conv2D(2, 3, padding="same", activation="tanh", kernel_initializer=near_gray, name="ab")(x)


def build_generator(architecture: Architecture) -> keras.Model:
    """The generator: light `[B, S, S, 1]` in -1..1 -> ab/110 `[B, S/2, S/2, 2]` in -1..1.

    U-Net (Ronneberger et al. 2015) predicting colour at half the light's size, where the eye is no sharper.

    Raises:
        ConfigError: the architecture's kind is unknown, or it asks a plain encoder for the scene.
    """
    light = layers.Input((None, None, 1), name="light")
    if architecture.sees_scene and architecture.kind not in LITE_STAGES:
        raise ConfigError(f"A generator of the kind '{architecture.kind}' has no view of the scene.")
    if architecture.kind in LITE_STAGES:
        features = _lite_encoder(layers.Concatenate()([light, light, light]), architecture.kind)
    elif architecture.kind == "plain_unet":
        features = _plain_encoder(light, architecture.plain_channels)
    else:
        raise ConfigError(f"This release cannot build a generator of the kind '{architecture.kind}'.")
    colour = _decoder(features, architecture.decoder_channels, architecture.sees_scene)
    return keras.Model(light, colour, name=architecture.kind)


def build_encoder(kind: str) -> keras.Model:
    """An encoder alone: RGB `[B, S, S, 3]` in -1..1 -> its features at strides 2, 4, 8, 16 (the generator's skips).

    Raises:
        ConfigError: there is no such encoder among `LITE_STAGES`.
    """
    if kind not in LITE_STAGES:
        raise ConfigError(f"There is no encoder of the kind '{kind}' that sees colours.")
    rgb = layers.Input((None, None, 3), name="rgb")
    return keras.Model(rgb, _lite_encoder(rgb, kind)[:-1], name=f"{kind}_encoder")


def build_discriminator() -> keras.Model:
    """PatchGAN (Isola et al. 2017): light and ab/110 `[B, S/2, S/2, 3]` -> logits `[B, S/16, S/16, 1]`, one per patch.

    Three strided layers see 46x46 patches; spectral normalisation (Miyato et al. 2018) bounds each layer's gain.
    """
    picture = layers.Input((None, None, 3), name="light_and_colour")
    x = picture
    for depth, channels in enumerate((64, 128, 256)):
        convolution = layers.Conv2D(channels, 4, 2, "same", name=f"c{depth}")
        x = layers.LeakyReLU(0.2)(layers.SpectralNormalization(convolution, name=f"s{depth}")(x))
    return keras.Model(picture, layers.Conv2D(1, 4, 1, "same", name="logit")(x), name="patchgan")


def encoder_layers(generator: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the generator that belong to its encoder (by the names given above)."""
    return [layer for layer in generator.layers if layer.name.startswith("_") or layer.name.startswith("p")]
