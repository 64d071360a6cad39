"""What a network makes of an image before its head: features after its layers, and attention.

A layer is named as in ``network.named_modules()``: ``blocks.3`` of a ViT, ``layer2.0`` of a ResNet,
``encoder.levels.1`` of a U-Net. Those worth asking for are the network's units (``unit = True``)
and the one that it says its embedding is after (``embeds``), which :func:`layers_of` lists.

A network that has ``tokens`` is asked for these alone: its head is not computed, and one that hides
patches in training shows all of them. Nothing here learns: dropout is off and no gradient kept.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swath.config import ConfigError
from swath.data.chip import Known
from swath.nn.attention import Attention


@runtime_checkable
class HasNetwork(Protocol):
    """A trained model, as ``load_model`` returns it."""

    @property
    def network(self) -> nn.Module: ...


def layers_of(model: nn.Module | HasNetwork) -> list[str]:
    """Return the names of the layers whose features are worth a look, in the network's order."""
    network = _network(model)
    last = getattr(network, "embeds", None)
    named = network.named_modules()
    return [name for name, layer in named if getattr(layer, "unit", False) or name == last]


def features(
    model: nn.Module | HasNetwork,
    image: Float[Tensor, "b c h w"],
    layers: Sequence[str] | None = None,
    known: Known | None = None,
) -> dict[str, Tensor]:
    """Return what comes out of ``layers``, by their names: tokens (b, t, d) of a transformer, the
    class token first; maps (b, d, gh, gw) of convolutions.

    image: normalised, of the model's bands. layers: None: all of :func:`layers_of`. known: of the
    images, for a network that ``asks`` for it: other bands than the model's, say. ConfigError for a
    layer that is not there, or that gives no single tensor.
    """
    network = _network(model)
    names = layers_of(network) if layers is None else list(layers)
    modules = dict(network.named_modules())
    for name in names:
        _check_there(name, modules, network)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def kept(_: nn.Module, __: Any, answer: Any) -> None:
            if not isinstance(answer, Tensor):
                inside = [other for other in modules if other.startswith(f"{name}.")][:3]
                raise ConfigError(
                    f"layer {name!r} gives several features; name a layer in it, such as "
                    f"{', '.join(inside)}"
                )
            found[name] = answer

        return kept

    with _hooks(modules[name].register_forward_hook(keep(name)) for name in names):
        _look(network, image, known)
        if len(found) < len(set(names)) and hasattr(network, "tokens"):
            with _resting(network):
                Told(network, known)(image)
    return {name: found[name] for name in names}


def attention(
    model: nn.Module | HasNetwork,
    image: Float[Tensor, "b c h w"],
    layers: Sequence[str] | None = None,
    known: Known | None = None,
) -> dict[str, Float[Tensor, "b m n n"]]:
    """Return how much each token heeds each other one, in each head, by the name of the layer.

    Rows are those who ask and add up to 1; the class token, if there is one, comes first. layers:
    blocks or attention layers, as blocks.3; None: all. known: as in :func:`features`. ConfigError
    if the network has none.
    """
    network = _network(model)
    there = {name: m for name, m in network.named_modules() if isinstance(m, Attention)}
    if not there:
        raise ConfigError(f"{type(network).__name__} has no attention; a vit has")
    chosen = there
    if layers is not None:
        modules = dict(network.named_modules())
        for name in layers:
            _check_there(name, modules, network)
            if not any(_in(layer, name) for layer in there):
                raise ConfigError(f"layer {name!r} has no attention; there is {_listed(there)}")
        chosen = {n: m for n, m in there.items() if any(_in(n, name) for name in layers)}
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def kept(_: nn.Module, heads: tuple[Tensor, Tensor, Tensor]) -> None:
            q, k, _v = heads
            found[name] = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)

        return kept

    with _hooks(m.mix.register_forward_pre_hook(keep(name)) for name, m in chosen.items()):
        _look(network, image, known)
    return {name: found[name] for name in chosen}


@dataclass(frozen=True)
class Cells:
    """Features of images by place: a vector for each ``unit`` x ``unit`` px."""

    token: Float[Tensor, "b d"] | None
    """The class token, or the one vector that the layer has for an image."""
    map: Float[Tensor, "b d gh gw"] | None
    """None: the layer has no places."""
    unit: int


def cells(
    model: nn.Module | HasNetwork,
    image: Float[Tensor, "b c h w"],
    layer: str,
    known: Known | None = None,
) -> Cells:
    """Return the features after ``layer`` as a map; ConfigError if its shape tells no places."""
    network = _network(model)
    found = features(network, image, [layer], known)[layer]
    height, width = image.shape[-2:]
    if found.ndim == 2:
        return Cells(found, None, 0)
    if found.ndim == 5:  # bands are the first of three dimensions; windows are all one place
        return Cells(found.flatten(2).mean(2), None, 0)
    if found.ndim == 3 and isinstance(patch := getattr(network, "patch", None), int):
        grid = (-(-height // patch), -(-width // patch))
        ahead = found.shape[1] - grid[0] * grid[1]
        if ahead >= 0:
            tokens = found[:, ahead:].mT.unflatten(2, grid)
            return Cells(found[:, 0] if ahead else None, tokens, patch)
    if found.ndim == 4:
        # Networks of convolutions halve: the step is the smallest power of two that fits.
        unit = 1
        while unit * found.shape[-1] < width or unit * found.shape[-2] < height:
            unit *= 2
        return Cells(None, found[..., : -(-height // unit), : -(-width // unit)], unit)
    raise ConfigError(
        f"layer {layer!r} gives {tuple(found.shape)} of images {tuple(image.shape)}, which says not"
        f" where in the image a vector belongs; choose one of {_listed(layers_of(network))}"
    )


def _network(model: nn.Module | HasNetwork) -> nn.Module:
    return model if isinstance(model, nn.Module) else model.network


class Told:
    """A network that is told, of the images that it is called with, what is known of them, if it
    asks for any; else as it is."""

    def __init__(self, network: nn.Module, known: Known | None) -> None:
        self._network = network
        asks = getattr(network, "asks", None)
        self._more: dict[str, Any] = {"known": known} if asks and known is not None else {}

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self._network(*args, **self._more, **more)

    def tokens(self, image: Tensor) -> Any:
        """Return the network's tokens."""
        return self._network.tokens(image, **self._more)  # type: ignore[operator]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def _look(network: nn.Module, image: Tensor, known: Known | None) -> None:
    told = Told(network, known)
    with _resting(network):
        (told.tokens if hasattr(network, "tokens") else told)(image)


@contextlib.contextmanager
def _resting(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


@contextlib.contextmanager
def _hooks(handles: Iterator[Any]) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for handle in handles:
            held.callback(handle.remove)
        yield


def _in(name: str, outer: str) -> bool:
    return f"{name}.".startswith(f"{outer}.")


def _check_there(name: str, modules: dict[str, nn.Module], network: nn.Module) -> None:
    if name not in modules or not name:
        near = difflib.get_close_matches(name, modules, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(layers_of(network))}"
        raise ConfigError(f"{type(network).__name__} has no layer {name!r}; {hint}")


def _listed(names: Any) -> str:
    some = list(names)
    return ", ".join(some if len(some) <= 8 else [*some[:4], "...", *some[-2:]])
