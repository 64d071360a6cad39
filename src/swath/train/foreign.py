"""A run's vision transformer, or masked autoencoder, written for other programs: by timm's names,
or for Hugging Face."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

import torch
from torch import Tensor, nn

from swath.config import ConfigError, kind_of
from swath.files import write_file
from swath.models.mae import MAE
from swath.models.vit import ViT
from swath.nn.mae import MaskedAutoencoder
from swath.nn.patch import SpectralHead, SpectralPatchEmbed
from swath.nn.position import step_of, waves
from swath.nn.vit import ViT as Network
from swath.train.export import About, load_model
from swath.train.names import as_hf, as_timm
from swath.train.tensors import pack

log = logging.getLogger(__name__)

LAYOUTS = ("timm", "hf")
_PARTS = {"head.": "the head", "decoder.": "the decoder", "decoder_": "the cross decoder"}
_PARTS["mask_token"] = "its token"


def write_foreign(folder: str | pathlib.Path, layout: str) -> pathlib.Path:
    """Write the model of a run folder for other programs; return the file or folder.

    timm: ``timm.safetensors``; of a masked autoencoder by the names of the paper's code, which are
    timm's. hf: the folder ``hf``, which transformers' ``ViTForImageClassification``, ``ViTModel``
    or ``ViTMAEForPreTraining`` opens, as its config.json says. What the encoder is read out by, and
    others do not have, is left out, and that is said. ConfigError if there is no model, or none
    that others have.
    """
    loaded = load_model(folder)
    model, network, place = loaded.about.model, loaded.network, pathlib.Path(folder)
    if not isinstance(model, ViT | MAE) or not isinstance(network, Network | MaskedAutoencoder):
        raise ConfigError(
            f"{place}: {kind_of(type(model))} has no counterpart by other names; vit and mae have."
            " Its model.safetensors can be opened by any program for that format"
        )
    _check_plain(model, place)
    if layout == "hf" and network.cls_token is None:
        raise ConfigError(
            f"{place}: Hugging Face's ViT has a class token, and this network has none: it is"
            f" trained with model.{'class_token=true' if isinstance(model, MAE) else 'pool=token'}."
            " timm's names go without"
        )
    own = _left_out(network)
    weights = {n: t for n, t in _plain(network).items() if not n.startswith(own or "no name")}
    if own:
        log.info("left out: %s, which others do not have", " and ".join(_PARTS[n] for n in own))
    if layout == "timm":
        path = place / "timm.safetensors"
        write_file(path, pack(as_timm(weights), {"format": "pt"}))
        return path
    path = place / "hf"
    path.mkdir(exist_ok=True)
    write_file(path / "model.safetensors", pack(as_hf(weights), {"format": "pt"}))
    config = json.dumps(_config(loaded.about, bool(own)), indent=1)
    write_file(path / "config.json", config.encode())
    return path


def _left_out(network: Network | MaskedAutoencoder) -> tuple[str, ...]:
    """Return how the names of the parts begin that other programs' networks do not have."""
    if isinstance(network, MaskedAutoencoder):
        return ("decoder_", "mask_token") if network.cross else ()
    if network.pool is not None and isinstance(network.head, nn.Linear):
        return ()
    return ("head.",) if network.decoder is None else ("head.", "decoder.")


def _check_plain(model: ViT | MAE, place: pathlib.Path) -> None:
    """Raise ConfigError for layers that other programs' networks do not have."""
    layers = {"aggregated channels (model.channels)": model.channels is not None}
    layers["gated hidden layers (model.gated)"] = model.mlp[1]
    layers["a token of time or place (model.time, model.place)"] = model.time or model.place
    for layer, there in layers.items():
        if there:
            raise ConfigError(
                f"{place}: a {kind_of(type(model))} with {layer} has no counterpart by other names."
                " Its model.safetensors can be opened by any program for that format"
            )


def _plain(network: Network | MaskedAutoencoder) -> dict[str, Tensor]:
    """Return the weights as those of a network that has them for each band and place."""
    weights = dict(network.state_dict())
    for name, layer in (("patch_embed.", "patch_embed.proj."), ("decoder_pred.", "decoder_pred.")):
        module = getattr(network, name[:-1], None)
        if isinstance(module, SpectralPatchEmbed | SpectralHead):
            weights = {n: t for n, t in weights.items() if not n.startswith(name)}
            weights[f"{layer}weight"], weights[f"{layer}bias"] = module.plain()
    widths = {"pos_embed": network.norm.weight.shape[0]}
    if isinstance(network, MaskedAutoencoder):
        widths["decoder_pos_embed"] = network.decoder_norm.weight.shape[0]
    ahead = 0 if network.cls_token is None else 1
    for name, width in widths.items():
        if getattr(network, name) is None:
            places = waves(*network.grid, width, step_of(None, network.gsd_m))
            weights[name] = torch.cat([torch.zeros(ahead, width), places])
    return weights


def _config(about: About, encoder: bool) -> dict[str, Any]:
    """Return what transformers builds the network by. encoder: whether that is all there is."""
    model = about.model
    assert isinstance(model, ViT | MAE), "write_foreign has looked"
    width, depth, heads = model.shape
    shared = {
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
    }
    if encoder:
        return {"architectures": ["ViTModel"], **shared}
    if isinstance(model, MAE):
        width, depth, heads = model.decoder_shape
        return {
            **shared,
            "architectures": ["ViTMAEForPreTraining"],
            "model_type": "vit_mae",
            "decoder_hidden_size": width,
            "decoder_num_hidden_layers": depth,
            "decoder_num_attention_heads": heads,
            "decoder_intermediate_size": 4 * width,
            "mask_ratio": 0.0 if model.mask == "spectral" else model.mask_ratio,
            "norm_pix_loss": getattr(about.task, "normalise", False),
        }
    names = dict(enumerate(about.label.classes or map(str, range(about.outputs.channels))))
    return {
        "architectures": ["ViTForImageClassification"],
        **shared,
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
