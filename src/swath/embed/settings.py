"""Which features of a model are taken, and how they are put to the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from swath.config import ConfigError

Pool = Literal["token", "mean", "patches"]
FOLDER = "embed"
"""Folder of embeddings, and of what is made from them, in a run folder."""


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Which features of the model ``swath embed``, ``similar``, ``anomalies`` and ``probe``
    take."""

    layer: str | None = None
    """Layer whose output is taken, as blocks.5, layer3 or encoder.levels.2. None: the last before
    the head (norm of a vit, layer4 of a resnet, decoder of a unet)."""
    pool: Pool | None = None
    """Of a sample: its class token, the mean over its patches (pixels of a unet), or each of these
    by itself. None: the class token if there is one, else the mean; patches where each pixel has a
    label. Of a scene it is always each patch."""


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """What ``swath anomalies`` takes for strange."""

    kind: Literal["neighbours", "mahalanobis"] = "neighbours"
    """neighbours: far from the k-th nearest training vector, by cosine. mahalanobis: far from their
    mean, in units of their spread along each direction."""
    neighbours: int = 10
    """Only for kind=neighbours: which neighbour counts (k). More: small groups are strange too."""
    most: int = 20_000
    """Training vectors to compare with at most, drawn with equal luck. More: slower."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.most < 2:
            raise ConfigError(
                f"neighbours={self.neighbours} must be at least 1 and most={self.most} at least 2"
            )


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How ``swath probe`` scores frozen features."""

    neighbours: int = 20
    """Training samples that vote for the class of a sample (k)."""
    temperature: float = 0.07
    """Of the votes: a neighbour counts exp(cosine / temperature). Smaller: the nearest alone."""
    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Shares of the training part's labels that are used, each class alike."""
    draws: int = 3
    """How many times each share below 1 is drawn; the table has mean and deviation."""
    penalty: float = 1.0
    """Of the logistic regression: weight of the squared coefficients against the sum of losses."""
    most: int = 20_000
    """Vectors of a part at most, drawn with equal luck; patches are many. More: slower."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.draws < 1 or self.most < 1:
            raise ConfigError(
                f"neighbours={self.neighbours}, draws={self.draws} and most={self.most} must be at"
                " least 1"
            )
        if self.temperature <= 0 or self.penalty <= 0:
            raise ConfigError(
                f"temperature={self.temperature:g} and penalty={self.penalty:g} must be above 0"
            )
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ConfigError(f"shares={list(self.shares)} must be shares, 0 < share <= 1")
