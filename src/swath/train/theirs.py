"""What one would type for ``model``, so that it is the network that given weights are of.

A run folder says it of its own weights. Of a transformer in another file its tensors say it, but
for the heads of attention, which leave no trace in shapes: they are those of the preset of that
width and depth, or one for each 64 numbers, as is usual.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from swath.config import ConfigError, kind_of, plain
from swath.models import Model
from swath.models._transformer import SIZES, Transformer
from swath.models.mae import MAE
from swath.models.vit import ViT
from swath.text import as_yaml
from swath.train import names
from swath.train.given import Given

_SIZE = ("preset", "width", "depth", "heads", "hidden", "gated", "patch")
_ENCODER = (*_SIZE, "embed", "channels", "time", "place", "withheld")


def words(source: Model | None, given: Mapping[str, Given], mine: Model, dense: bool) -> str:
    """Return the word to type, as ``"model={kind: vit, width: 96, ...}"``; "" if it is not known.

    source: the network that the weights are of; None: only ``given`` tells. mine: the network
    that was asked for; of a transformer all that does not concern the encoder is kept. dense:
    whether an output for each pixel is wanted.
    """
    if source is None:
        found = _of_shapes(given)
    elif isinstance(source, Transformer):
        found = {name: getattr(source, name) for name in _ENCODER}
    else:
        return _typed(source)
    if not found:
        return ""
    own = mine if isinstance(mine, Transformer) else ViT()
    if getattr(source, "positions", None) == "metres":
        found["positions"] = "metres"
    if isinstance(own, ViT):
        found["reads"] = None  # the blocks of another depth
        if isinstance(source, MAE) and not source.class_token and not dense:
            found["pool"] = "mean"
    try:
        return _typed(dataclasses.replace(own, **found))
    except ConfigError:  # what is kept does not fit the encoder
        return ""


def check_heads(source: Model | None, mine: Model, theirs: str) -> None:
    """Raise ConfigError if ``mine`` divides its tokens among other heads than ``source``, whose
    weights have the same shapes all the same, and would mean something else.

    theirs: what :func:`words` says of ``source``.
    """
    if not isinstance(source, Transformer) or not isinstance(mine, Transformer):
        return
    (width, _, heads), (own, _, asked) = source.shape, mine.shape
    if width == own and heads != asked:
        raise ConfigError(
            f"init.from: these weights were trained with {heads} heads of attention and"
            f" model.heads={asked} here, which would read them otherwise; set {theirs}"
        )


def _of_shapes(given: Mapping[str, Given]) -> dict[str, Any]:
    """Return the size of the transformer that ``given`` are of; {} if they are of none."""
    shapes = {name: tensor.shape for name, (_, tensor) in names.here(given).items()}
    blocks = [re.search(r"(?<!decoder_)blocks\.(\d+)\.", name) for name in shapes]
    norm = next((s for n, s in shapes.items() if re.search(r"(^|\.)blocks\.0\.norm1\.w", n)), None)
    patch = next((s for n, s in shapes.items() if n.endswith("patch_embed.proj.weight")), None)
    if norm is None or patch is None or len(patch) != 4:
        return {}
    width, depth = norm[0], 1 + max(int(block[1]) for block in blocks if block)
    heads = next((s.heads for s in SIZES.values() if s[:2] == (width, depth)), max(1, width // 64))
    return {"preset": None, "width": width, "depth": depth, "heads": heads, "patch": patch[-1]}


def _typed(model: Model) -> str:
    settings = {"kind": kind_of(type(model)), **plain(model, defaults=False)}
    return f'"model={as_yaml(settings, flow=True).strip()}"'
