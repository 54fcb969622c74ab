"""A preset with one of its means switched off, so that the worth of each can be measured at an equal budget."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Final

from model.config import ConfigError, Phase, Preset


def without(preset: Preset, parts: Collection[str]) -> Preset:
    """The preset without these of its parts; the phases that are left share the whole budget in their old ratios.

    encoder: no ImageNet weights; the encoder learns from scratch in every phase, at the decoder's rate, never frozen.
    warmup: no L1 phases and no critic pre-training; GAN + λ·L1 from step 0, in full, the encoder learning along.
    gan: no discriminator; the shares of its phases go to the L1 phases.
    film: L is never aged.

    Args:
        preset: the recipe to take them from.
        parts: of `PARTS`; order and repetition do not matter.

    Returns:
        The recipe named `<preset>-without-<part>…`, which takes no run of another recipe for its own; the preset
        itself where there are no parts.

    Raises:
        ConfigError: no such part, the preset has no such part, or nothing would be left to train.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ConfigError(f"A preset cannot go without '{unknown[0]}'; choose from {', '.join(PARTS)}.")
    chosen = [part for part in PARTS if part in parts]
    found = preset
    for part in chosen:
        changed = _SWITCH_OFF[part](found)
        if changed == found:
            raise ConfigError(f"The preset '{preset.name}' has no {part} to go without.")
        found = changed
    return dataclasses.replace(found, name=f"{preset.name}-without-{'-'.join(chosen)}") if chosen else preset


def _without_encoder(preset: Preset) -> Preset:
    if preset.encoder_weights == "none":
        return preset
    phases = tuple(dataclasses.replace(phase, encoder_rate=1.0) for phase in preset.phases)
    return dataclasses.replace(preset, encoder_weights="none", phases=phases)


def _without_warmup(preset: Preset) -> Preset:
    dropped = [phase for phase in preset.phases if phase.objective != "adversarial"]
    if not dropped:
        return preset
    # where no phase says how fast the encoder may learn, as fast as the decoder
    rate = max((phase.encoder_rate for phase in dropped if phase.objective == "l1"), default=0.0) or 1.0
    kept = [phase for phase in preset.phases if phase.objective == "adversarial"]
    # a ramp would be an L1 warm-up by another name
    return _with_phases(preset, [dataclasses.replace(phase, encoder_rate=rate, ramp=0.0) for phase in kept])


def _without_gan(preset: Preset) -> Preset:
    kept = [phase for phase in preset.phases if phase.objective == "l1"]
    return preset if len(kept) == len(preset.phases) else _with_phases(preset, kept)


def _without_film(preset: Preset) -> Preset:
    return dataclasses.replace(preset, sampling=dataclasses.replace(preset.sampling, film_share=0.0))


def _with_phases(preset: Preset, phases: Sequence[Phase]) -> Preset:
    if not phases:
        raise ConfigError(f"Nothing would be left to train of the preset '{preset.name}'.")
    whole = sum(phase.share for phase in phases)
    shared = tuple(dataclasses.replace(phase, share=phase.share / whole) for phase in phases)
    return dataclasses.replace(preset, phases=shared)


_SWITCH_OFF: Final[dict[str, Callable[[Preset], Preset]]] = {
    "encoder": _without_encoder,
    "warmup": _without_warmup,
    "gan": _without_gan,
    "film": _without_film,
}
#: what a preset can go without
PARTS: Final = tuple(_SWITCH_OFF)
