"""Ways to put a model to work on a task, by name: all that tells them apart stands here.

A way of training is words over the task's settings: one more is one more entry. How features are
scored as they are is said by ``swath.embed.probe``, whose methods are kinds of way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from swath.config import ConfigError

METHODS = ("knn", "linear")
"""Kinds that score features as they are."""
BASELINE = "baseline"
"""The way of a baseline, which is none of a model's."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to put a model to work on a task."""

    kind: Literal["knn", "linear", "train"] | None = None
    """knn, linear: its features as they are, as `swath probe` scores them. train: it is trained
    further, as `swath train` does. None: as the way is called; train, if it is no known one."""
    words: tuple[str, ...] | None = None
    """Of kind train: key=value words over the task's settings, as adapt.kind=full. None: those of
    the way's name (probe, full, lora)."""
    scratch: tuple[str, ...] | None = None
    """In place of `words` for a model with random weights, which may need another rate. None: the
    same, but for adapt.kind=full: without layers of different rates."""
    tries: tuple[str, ...] = ()
    """Of kind train: words of which each is tried, as optim.lr=1e-3; the one that is best on the
    validation part is scored. Every model has the same choice."""
    models: tuple[str, ...] | None = None
    """Names of the models that go this way; None: all."""

    def __post_init__(self) -> None:
        for name in ("words", "scratch", "tries"):
            if self.frozen and getattr(self, name):
                raise ConfigError(
                    f"{name} has no effect on kind={self.kind}, which trains nothing; how it is"
                    " done is set by probe.NAME=... in a task's run"
                )
        for word in (*(self.words or ()), *(self.scratch or ()), *self.tries):
            if "=" not in word:
                raise ConfigError(f"{word!r} is no key=value word, such as optim.lr=1e-3")

    @property
    def frozen(self) -> bool:
        """Whether it scores features as they are, and trains nothing."""
        return self.kind in METHODS

    def filled(self, name: str) -> Way:
        """Return this way, called ``name``, with what is left out filled in."""
        known = KNOWN[name][1] if name in KNOWN else Way(kind="train", words=())
        if self.words is not None:  # then nothing of the known one is left
            known = dataclasses.replace(known, scratch=None)
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        given = {name: value for name, value in fields.items() if value not in (None, ())}
        if self.scratch == ():
            given["scratch"] = ()
        return dataclasses.replace(known, **given)


KNOWN = {
    "knn": ("k-NN on frozen features", Way(kind="knn")),
    "linear": ("linear layer on frozen features", Way(kind="linear")),
    "probe": ("head trained, encoder frozen", Way(kind="train", words=("adapt={kind: probe}",))),
    "full": ("fine-tuned whole", Way(kind="train", words=("adapt={kind: full}",), scratch=())),
    "lora": ("fine-tuned by LoRA", Way(kind="train", words=("adapt={kind: lora}",))),
}
"""Ways by name: what each is called in sentences and pictures, and what it does."""


def title(name: str) -> str:
    """Return what the way ``name`` is called in sentences and pictures: one of your own by it."""
    return KNOWN[name][0] if name in KNOWN else name
