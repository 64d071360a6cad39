"""A run's vision transformer written for other programs: by timm's names, or for Hugging Face."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import torch
from torch import Tensor

from swath.config import ConfigError, kind_of
from swath.files import write_file
from swath.models.vit import ViT
from swath.nn.patch import SpectralPatchEmbed
from swath.nn.position import waves
from swath.nn.vit import ViT as Network
from swath.train.export import About, load_model
from swath.train.names import as_hf, as_timm
from swath.train.tensors import pack

LAYOUTS = ("timm", "hf")


def write_foreign(folder: str | pathlib.Path, layout: str) -> pathlib.Path:
    """Write the model of a run folder for other programs; return the file or folder.

    timm: ``timm.safetensors``. hf: the folder ``hf``, which transformers'
    ``ViTForImageClassification.from_pretrained`` opens, and ``ViTModel``, without the head.
    ConfigError if there is no model, or none that others have.
    """
    loaded = load_model(folder)
    model, network, place = loaded.about.model, loaded.network, pathlib.Path(folder)
    if not isinstance(model, ViT) or not isinstance(network, Network):
        raise ConfigError(
            f"{place}: {kind_of(type(model))} has no counterpart by other names; vit has. Its"
            " model.safetensors can be opened by any program for that format"
        )
    _check_plain(model, place)
    weights = _plain(network)
    if layout == "timm":
        path = place / "timm.safetensors"
        write_file(path, pack(as_timm(weights), {"format": "pt"}))
        return path
    named = as_hf(weights)
    path = place / "hf"
    path.mkdir(exist_ok=True)
    write_file(path / "model.safetensors", pack(named, {"format": "pt"}))
    write_file(path / "config.json", json.dumps(_config(model, loaded.about), indent=1).encode())
    return path


def _check_plain(model: ViT, place: pathlib.Path) -> None:
    """Raise ConfigError for layers that other programs' networks do not have."""
    layers = {"aggregated channels (model.channels)": model.channels is not None}
    layers["gated hidden layers (model.gated)"] = model.mlp[1]
    for layer, there in layers.items():
        if there:
            raise ConfigError(
                f"{place}: a vit with {layer} has no counterpart by other names. Its"
                " model.safetensors can be opened by any program for that format"
            )


def _plain(network: Network) -> dict[str, Tensor]:
    """Return the weights as those of a network that has them for each band and place."""
    weights = dict(network.state_dict())
    embed = network.patch_embed
    if isinstance(embed, SpectralPatchEmbed):
        weights = {n: t for n, t in weights.items() if not n.startswith("patch_embed.")}
        made = embed.weights() / len(embed.bands)
        weights |= {"patch_embed.proj.weight": made, "patch_embed.proj.bias": embed.bias}
    if network.pos_embed is None:
        width = network.norm.weight.shape[0]
        ahead = torch.zeros(0 if network.cls_token is None else 1, width)
        weights["pos_embed"] = torch.cat([ahead, waves(*network.grid, width)])
    return weights


def _config(model: ViT, about: About) -> dict[str, Any]:
    width, depth, heads = model.shape
    names = dict(enumerate(about.label.classes or map(str, range(about.outputs.channels))))
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": model.mlp[0],
        "image_size": -(-about.inputs.size // model.patch) * model.patch,
        "patch_size": model.patch,
        "num_channels": len(about.inputs.bands),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
