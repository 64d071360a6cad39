"""What others call the tensors of a vision transformer, and what they are called here.

Read are timm's names (which SatMAE and Prithvi-EO have, too), and those of Hugging Face's ViT and
ViTMAE, on disk and in memory. Written are timm's and those that Hugging Face has on disk. Names
that are none of these stay as they are; prefixes are left to :mod:`swath.train.match`.

Sources: the public definitions: timm's VisionTransformer, transformers' ViTModel and
ViTMAEForPreTraining, SatMAE's models_mae.py, Prithvi-EO's prithvi_mae.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from swath.train.given import Given

_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(^|\.)embeddings\.cls_token$", r"\1cls_token"),
        (r"(^|\.)embeddings\.position_embeddings$", r"\1pos_embed"),
        (r"(^|\.)embeddings\.patch_embeddings\.projection\.", r"\1patch_embed.proj."),
        (r"(^|\.)decoder\.(decoder_|mask_token)", r"\1\2"),
        (r"decoder_(?:layers|encoder\.layer)\.(\d+)\.", r"decoder_blocks.\1."),
        (r"(^|\.)(?:encoder\.layer|layers)\.(\d+)\.", r"\1blocks.\2."),
        (r"\.attention\.(?:attention\.)?(?:query|q_proj)\.", ".attn.q."),
        (r"\.attention\.(?:attention\.)?(?:key|k_proj)\.", ".attn.k."),
        (r"\.attention\.(?:attention\.)?(?:value|v_proj)\.", ".attn.v."),
        (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
        (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
        (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"(^|\.)layernorm\.", r"\1norm."),
        (r"^classifier\.", "head."),
    )
)


def here(given: Mapping[str, Given]) -> dict[str, tuple[tuple[str, ...], Given]]:
    """Return ``given`` by the names that they have here, each with the names of what it is of.

    One layer for queries, keys and values (``qkv``) becomes three. A projection of several frames
    (Prithvi-EO) becomes that of one: of a still image, which is the same in all of them; so do
    positions that repeat from frame to frame. Layers for groups of bands (SatMAE) become one.
    """
    given, made_of = _one_token_for_all_groups(given)
    found: dict[str, tuple[tuple[str, ...], Given]] = {}
    still = any(len(g.shape) == 5 and "patch_embed" in name for name, g in given.items())
    for theirs, tensor in given.items():
        name, own = theirs, made_of.get(theirs, (theirs,))
        if (
            ".layers." in f".{theirs}"
            or "embeddings." in theirs
            or "layernorm" in theirs
            or (re.search(r"encoder\.layer\.\d|decoder_layers|^classifier\.|^decoder\.", theirs))
        ):
            for pattern, ours in _RULES:
                name = pattern.sub(ours, name)
        if ".qkv." in name:
            for number, part in enumerate("qkv"):
                found[name.replace(".qkv.", f".{part}.")] = own, tensor.part(number, 3)
            continue
        if still and len(tensor.shape) == 5:
            tensor = _of_a_still(tensor)
        elif still and name.rpartition(".")[2] == "pos_embed":
            tensor = _of_one_frame(tensor)
        found[name] = own, tensor
    return found


def _one_token_for_all_groups(
    given: Mapping[str, Given],
) -> tuple[Mapping[str, Given], dict[str, tuple[str, ...]]]:
    """Return SatMAE's layers for groups of bands as one layer for all of them, in the order of the
    groups: a patch's token becomes the mean of its tokens of all groups, their embedding with it;
    and of which layers each new one is made.
    """
    embedding = next((name for name in given if name.endswith("channel_embed")), "channel_embed")
    prefix = embedding.removesuffix("channel_embed")
    embed = f"{prefix}patch_embed."
    layers = sorted(
        {n.removeprefix(embed).split(".")[0] for n in given if n.startswith(embed)},
        key=lambda layer: (len(layer), layer),
    )
    if embedding not in given or not all(layer.isdigit() for layer in layers):
        return given, {}
    weights = [given[f"{embed}{layer}.proj.weight"] for layer in layers]
    biases = [given[f"{embed}{layer}.proj.bias"] for layer in layers]
    places, groups = given[f"{prefix}pos_embed"], given[embedding]
    token = given[f"{prefix}channel_cls_embed"]

    def positions() -> Tensor:
        table = places.read().flatten(0, -2)
        mean = groups.read().flatten(0, -2).mean(0).expand(len(table) - 1, -1)
        return torch.cat([table, torch.cat([token.read().reshape(1, -1), mean])], 1)

    bands = sum(weight.shape[1] for weight in weights)
    shape = (weights[0].shape[0], bands, *weights[0].shape[2:])
    gone = (f"{embed}", f"{prefix}channel_")
    rest = {name: tensor for name, tensor in given.items() if not name.startswith(gone)}
    width = places.shape[-1] + groups.shape[-1]
    made = {
        f"{embed}proj.weight": Given(
            shape, lambda: torch.cat([w.read() for w in weights], 1) / len(weights)
        ),
        f"{embed}proj.bias": Given(
            biases[0].shape, lambda: torch.stack([b.read() for b in biases]).mean(0)
        ),
        f"{prefix}pos_embed": Given((places.shape[-2], width), positions),
    }
    made_of = {
        name: tuple(f"{embed}{layer}.proj.{name.rpartition('.')[2]}" for layer in layers)
        for name in made
    }
    made_of[f"{prefix}pos_embed"] = tuple(
        f"{prefix}{name}" for name in ("pos_embed", "channel_embed", "channel_cls_embed")
    )
    return {**rest, **made}, made_of


def _of_a_still(tensor: Given) -> Given:
    shape = (*tensor.shape[:2], *tensor.shape[3:])
    return Given(shape, lambda: tensor.read().sum(2))


def _of_one_frame(tensor: Given) -> Given:
    """Return positions of the first of several frames: those whose places repeat in half of their
    numbers or more, as sines and cosines of rows and columns do."""
    table = tensor.read().reshape(-1, tensor.shape[-1])
    places = len(table) - 1  # the class token's first
    for frames in range(2, 65):
        side = math.isqrt(places // frames)
        if places % frames or side * side != places // frames:
            continue
        first, second = table[1 : 1 + side * side], table[1 + side * side : 1 + 2 * side * side]
        alike = (first - second).abs().amax(0) < 1e-5
        if side > 1 and alike.double().mean() >= 0.5:
            rows = 1 + side * side
            return Given((rows, table.shape[1]), table[:rows].clone)
    return tensor


def as_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a vision transformer, or of a masked autoencoder, by timm's names and
    in its shapes."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".attn.")
        if leaf in ("q.weight", "q.bias"):
            parts = [weights[f"{stem}.attn.{part}{leaf[1:]}"] for part in "qkv"]
            found[f"{stem}.attn.qkv{leaf[1:]}"] = torch.cat(parts)
        elif leaf.partition(".")[0] not in ("k", "v"):
            found[name] = _with_ones(name, tensor)
    return found


def as_hf(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a vision transformer with a class token by the names that Hugging
    Face's ViTForImageClassification and ViTMAEForPreTraining have on disk."""
    layer = {
        "attn.q": "attention.attention.query",
        "attn.k": "attention.attention.key",
        "attn.v": "attention.attention.value",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    }
    outside = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
        "mask_token": "decoder.mask_token",
        "decoder_pos_embed": "decoder.decoder_pos_embed",
        **{f"decoder_{name}": f"decoder.decoder_{name}" for name in ("embed", "norm", "pred")},
    }
    blocks = {"blocks": "vit.encoder.layer", "decoder_blocks": "decoder.decoder_layers"}
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        block = re.fullmatch(r"(\w+)\.(\d+)\.(.+)\.(weight|bias)", name)
        if block is not None:
            theirs = f"{blocks[block[1]]}.{block[2]}.{layer[block[3]]}.{block[4]}"
        else:
            stem, _, leaf = name.rpartition(".")
            theirs = outside[name] if name in outside else f"{outside[stem]}.{leaf}"
        found[theirs] = _with_ones(name, tensor)
    return found


def _with_ones(name: str, tensor: Tensor) -> Tensor:
    if name in ("cls_token", "mask_token"):
        return tensor[None, None]
    return tensor[None] if name in ("pos_embed", "decoder_pos_embed") else tensor
