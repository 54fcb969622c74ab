"""What the gate takes in and gives out: limits, rows, findings, and the verdict with every figure."""

import dataclasses
import enum

from model.scores import PhotoScore

CURATED = "curated"
OPERATOR = "operator"


class Outcome(enum.StrEnum):
    """What becomes of the challenger."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    NEEDS_APPROVAL = "needs_approval"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The limits; ratios are relative to the champion (0.01 is 1 %)."""

    fidelity_worse: float = 0.01
    least_gain: float = 0.01
    slice_worse: float = 0.03
    slice_photos: int = 20
    bias: float = 3.0
    chroma_low: float = 0.75
    chroma_high: float = 1.15
    skin_hue_low: float = 20.0
    skin_hue_high: float = 75.0
    zombie_worse: float = 0.02
    weights_larger: float = 0.10
    slower: float = 0.10
    holdout_photos: int = 40
    resamples: int = 10_000
    confidence: float = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """One photo under one version."""

    score: PhotoScore
    #: CURATED hold-out, or the OPERATOR's evaluation set
    collection: str
    #: share of the photo that is skin in the original; 0 where nobody looked for any
    skin_share: float = 0.0
    #: mean hue of our colours there, degrees; and the share of it that is gray, green or blue
    skin_hue: float = float("nan")
    zombie_share: float = float("nan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artefact:
    """What a fresh process found about the challenger's files."""

    problem: str = ""
    failed: tuple[str, ...] = ()
    size_ratio: float = 1.0
    latency_ratio: float = 1.0
    #: the same layers at the same size cost the same: then the measured latency is only told
    same_architecture: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One question and its answer."""

    point: int
    name: str
    ok: bool
    says: str
    champion: float | None = None
    challenger: float | None = None
    #: relative change and its interval, where the check compares means
    change: float | None = None
    interval: tuple[float, float] | None = None
    photos: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome, the reasons for anything but a promotion, and every figure."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    #: slices with too few photos to decide anything: name -> photos, relative change of ab-L1
    reported_slices: dict[str, tuple[int, float]]
