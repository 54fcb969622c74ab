"""Recipes as data: architecture, training phases, augmentation and sampling of each preset.

Scores are R, LPIPS, chroma ratio as served, by `photochrom evaluate ../shared/eval/photos --lpips`; MODEL_CARD.md has
them with intervals. Commands begin with `photochrom train PHOTOS --output DIR`.

`default`: ImageNet encoder, L1 warm-up, critic pre-training, then GAN + 100·L1 with a ramp (anchored in pix2pix,
Isola et al. 2017, and in DeOldify's short adversarial stage). No option needed. After 87 minutes of two cores
0.575, 0.179, 0.86, averaged with its L1 stage.
`vivid`: after the L1 stages of `default` two that mind rare colours and how the picture looks to a frozen ImageNet
encoder: 100·rarity-weighted L1 + 60·perceptual distance, then GAN beside these. `--preset vivid`. Made the weights that
ship: after 100 minutes 0.579, 0.171, 0.85, averaged over its last two stages.
`finetune`: the objective of `default` from weights that exist: a short L1 stage at a small rate, then the adversarial
stage. `--preset finetune --start NPZ --start-discriminator NPZ`; scores like those of the weights it starts from.
`adversarial`: the adversarial stage alone, the encoder frozen, from weights and discriminator that exist; options and
scores likewise.
`textbook`: a plain U-Net from scratch, GAN + 100·L1 from step 0. `--preset textbook`. After 11 minutes of one core
0.287, 0.231, 0.69, where `default` reaches 0.553, 0.185, 0.91.
"""

import dataclasses
from typing import Any, Literal

#: |ab| that the generator's tanh can reach; targets and losses are ab divided by this
AB_RANGE = 110.0

Objective = Literal["l1", "critic", "adversarial"]


class ConfigError(ValueError):
    """A preset or a recorded configuration that cannot be used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What `networks.build_generator` builds; recorded with every version's weights."""

    kind: Literal["lite0_unet", "lite2_unet", "plain_unet"] = "lite0_unet"
    #: the decoder is told what the encoder's last ImageNet layer makes of the whole picture; not for `plain_unet`
    sees_scene: bool = False
    #: channels of the decoder's blocks at strides 32, 16, 8, 4, 2
    decoder_channels: tuple[int, ...] = (256, 192, 128, 64, 48)
    #: channels of the plain encoder's blocks at strides 2, 4, 8, 16, 32; unused by the others
    plain_channels: tuple[int, ...] = (48, 96, 192, 384, 384)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training under one objective; phases follow each other and share the budget."""

    name: str
    objective: Objective
    #: part of the whole budget (minutes or steps); the shares of a preset add up to 1
    share: float
    size_px: int
    #: Adam's rate of the decoder, constant until the last `decay_share` of the phase, over which it falls to 0
    rate: float = 2e-4
    decay_share: float = 0.0
    #: the encoder's rate as a multiple of `rate`; 0 freezes it, running statistics included
    encoder_rate: float = 1.0
    #: part of an adversarial phase over which the weight of the GAN term rises from 0 to 1
    ramp: float = 0.0
    #: power of the weights that rare colours get in L1 (`vividness.PixelRarity`); 0 for the plain mean
    pixel_rarity_power: float = 0.0
    #: weight of the perceptual distance (`vividness.PerceptualDistance`) beside GAN + λ·L1; 0 leaves it out
    perceptual_weight: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which photos a batch is drawn from, how they are cropped and how L is aged."""

    #: photos of a source with n photos are drawn n**source_power / n times as often as by pure chance
    source_power: float = 0.5
    #: strength of the preference for photos with rare colours (0 none, 1 Zhang et al.'s weights)
    rarity_power: float = 0.5
    #: photos duller than this Hasler–Süsstrunk colourfulness are dropped
    least_colourfulness: float = 15.0
    #: share of batches' pictures that are the whole photo squeezed into a square, as at serving
    whole_share: float = 0.4
    #: shortest crop side as part of the photo's short side
    least_crop: float = 0.5
    #: share of pictures whose L goes through the simulation of old film
    film_share: float = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """One complete recipe."""

    name: str
    phases: tuple[Phase, ...]
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    encoder_weights: Literal["imagenet", "none"] = "imagenet"
    batch: int = 16
    #: λ of GAN + λ·L1
    l1_weight: float = 100.0
    critic_rate: float = 2e-4
    beta_1: float = 0.5
    ema_decay: float = 0.999
    #: photos kept out of training to calibrate the saturation and to choose by
    holdout_photos: int = 600
    #: mean chroma of the hold-out's results over that of the originals which the calibration aims at
    chroma_ratio_aim: float = 0.95
    #: short side of the decoded photos in the cache
    cache_px: int = 176
    serve_size_px: int = 256
    #: budget when neither minutes nor steps are given
    minutes: float = 120.0


_WARM = Phase(name="decoder", objective="l1", share=0.03, size_px=128, rate=8e-4, encoder_rate=0.0)
_L1 = Phase(name="l1", objective="l1", share=0.37, size_px=128, rate=6e-4, encoder_rate=0.3)
_LARGER = dataclasses.replace(_L1, name="l1_larger", share=0.29, size_px=160, decay_share=1.0)
_CRITIC = Phase(name="critic", objective="critic", share=0.03, size_px=160, encoder_rate=0.0)
_GAN = Phase(name="adversarial", objective="adversarial", share=0.28, size_px=160, encoder_rate=0.0, ramp=0.3)
_PERCEIVED = dataclasses.replace(
    _LARGER, name="perceptual", share=0.2, rate=4e-4, encoder_rate=0.0, pixel_rarity_power=0.5, perceptual_weight=60.0
)
_VIVID = dataclasses.replace(_GAN, share=0.2, decay_share=0.6, pixel_rarity_power=0.5, perceptual_weight=60.0)
_LITE2 = Architecture(kind="lite2_unet", sees_scene=True)

PRESETS: dict[str, Preset] = {
    "default": Preset(name="default", architecture=_LITE2, batch=32, phases=(_WARM, _L1, _LARGER, _CRITIC, _GAN)),
    "vivid": Preset(
        name="vivid",
        architecture=_LITE2,
        batch=32,
        minutes=100.0,
        sampling=Sampling(film_share=0.3),
        phases=(
            _WARM,
            dataclasses.replace(_L1, share=0.3),
            dataclasses.replace(_LARGER, share=0.25),
            _PERCEIVED,
            dataclasses.replace(_CRITIC, share=0.02),
            _VIVID,
        ),
    ),
    "finetune": Preset(
        name="finetune",
        architecture=_LITE2,
        encoder_weights="none",
        ema_decay=0.9995,
        phases=(
            dataclasses.replace(_LARGER, name="l1", share=0.42, rate=3e-4, encoder_rate=0.1, decay_share=0.6),
            dataclasses.replace(_CRITIC, share=0.05),
            dataclasses.replace(_GAN, share=0.53),
        ),
    ),
    "adversarial": Preset(
        name="adversarial",
        architecture=_LITE2,
        encoder_weights="none",
        ema_decay=0.9995,
        sampling=Sampling(film_share=0.25),
        phases=(
            dataclasses.replace(_CRITIC, share=0.08),
            dataclasses.replace(_GAN, share=0.92),
        ),
    ),
    "textbook": Preset(
        name="textbook",
        architecture=Architecture(kind="plain_unet"),
        encoder_weights="none",
        sampling=Sampling(source_power=1.0, rarity_power=0.0, least_colourfulness=0.0, film_share=0.0),
        phases=(Phase(name="adversarial", objective="adversarial", share=1.0, size_px=128),),
    ),
}


def preset(name: str) -> Preset:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def architecture_from(record: dict[str, Any]) -> Architecture:
    """The architecture that a version's `config.json` records.

    Raises:
        ConfigError: the record is not one that this release can build.
    """
    try:
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
        return Architecture(**fields)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"The recorded architecture {record!r} is not one this release can build.") from error
