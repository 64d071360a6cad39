"""What a map says of itself, in its tags: which layer it is, of which scene, made by which model.

Many scenes are called alike (``image.tif`` in folders of their own), so a scene is known by what
its files hold: for each band a fingerprint of the file that it was read from, wherever that lies.
A map of one scene is never written over that of another, nor scored or shown as if it were.

A finished map stays: asked for again it is left as it is, and one with other settings is not
written over it. Only that of another model, which the run folder no longer holds, is replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swath.config import ConfigError
from swath.data.imagery import Scene
from swath.data.store import Store
from swath.geo.raster import open_raster
from swath.predict.settings import stem

log = logging.getLogger(__name__)

_NO_PIXEL = ("files", "layers", "probabilities", "uncertainty")
"""Of a map's plan: when files were copied and what is written beside."""

_NO_PIXEL_OF_SCENE = ("path", "files", "bands", "name", "when")
"""Of a scene's settings: where it lies and what it is called, which its content tells better."""

LAYERS = ("", "_probabilities", "_uncertainty")
"""What the names of a map's files may end in, the map itself first."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a map comes from."""

    model: str
    """Fingerprint of the model."""
    plan: Mapping[str, Any]
    """All that the map's pixels depend on, as JSON: equal in the layers of one map."""
    scene: str
    """Name of the scene."""
    path: str
    """Where the scene lay."""
    content: Mapping[str, str]
    """Fingerprint of the file of each band."""
    layer: str = ""
    """What the file holds, such as "classes"."""

    @classmethod
    def of(cls, scene: Scene, model: str, plan: Mapping[str, Any]) -> Origin:
        """Return the origin of a map of ``scene`` that follows ``plan``."""
        made_of = {key: part for key, part in plan.items() if key not in _NO_PIXEL}
        seen = made_of["scene"].items()
        made_of["scene"] = {key: part for key, part in seen if key not in _NO_PIXEL_OF_SCENE}
        return cls(
            model=model,
            plan=json.loads(json.dumps(made_of)),
            scene=scene.name,
            path=str(pathlib.Path(scene.imagery.path).absolute()),
            content=scene.content,
        )

    def tags(self, layer: str) -> dict[str, str]:
        """Return what is written into the file of ``layer``."""
        return {
            "LAYER": layer,
            "MODEL_SHA256": self.model,
            "MAP_PLAN": json.dumps(self.plan),
            "SCENE": self.scene,
            "SCENE_PATH": self.path,
            "SCENE_CONTENT": json.dumps(dict(self.content)),
        }


def read_origin(path: str | pathlib.Path) -> Origin | None:
    """Return what the raster ``path`` says of itself; None if it is no map that says so."""
    with open_raster(path) as raster:
        tags = raster.tags()
    try:
        return Origin(
            model=tags["MODEL_SHA256"],
            plan=json.loads(tags["MAP_PLAN"]),
            scene=tags["SCENE"],
            path=tags["SCENE_PATH"],
            content=json.loads(tags["SCENE_CONTENT"]),
            layer=tags["LAYER"],
        )
    except (KeyError, ValueError):
        return None


def same_scene(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether two contents are of one scene: bands they have in common, and all alike."""
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[band] == other[band] for band in shared)


def maps_in(folder: pathlib.Path) -> dict[pathlib.Path, Origin]:
    """Return the maps below ``folder``, without the layers beside them, by their files."""
    found = {path: read_origin(path) for path in sorted(folder.glob("*.tif"))}
    beside = tuple(name.lstrip("_") for name in LAYERS[1:])
    return {p: o for p, o in found.items() if o is not None and o.layer not in beside}


def name_for(folder: pathlib.Path, scene: Scene) -> str:
    """Return what the files of the map of ``scene`` below ``folder`` are to be called.

    Its name, unless another scene's map is called so; that is said, and it gets a name apart.
    """
    name = stem(scene.name)
    other = _another(folder, name, scene)
    if other is None:
        return name
    apart = apart_name(scene)
    if _another(folder, apart, scene) is not None:
        raise ConfigError(
            f"{folder / apart}.tif: is the map of another scene; give this one a name of its own "
            "with predict.scene.name"
        )
    log.warning(
        "%s is the map of another scene of that name (%s); this one is called %s.tif. "
        "predict.scene.name=NAME calls it otherwise",
        folder / f"{name}.tif",
        other,
        apart,
    )
    return apart


def apart_name(scene: Scene) -> str:
    """Return the name of a scene with six letters of its content, so that no other has it."""
    told = json.dumps(scene.content, sort_keys=True).encode()
    return f"{stem(scene.name)}-{hashlib.sha256(told).hexdigest()[:6]}"


def _another(folder: pathlib.Path, name: str, scene: Scene) -> str | None:
    """Return where the scene lies whose map, finished or begun, has ``name``; None if there is no
    such map, or it is of ``scene``."""
    for suffix in LAYERS:
        path = folder / f"{name}{suffix}.tif"
        origin = read_origin(path) if path.exists() else None
        if origin is not None and not same_scene(origin.content, scene.content):
            return origin.path
    try:
        plan = json.loads((folder / f".{name}.ledger").read_text())["plan"]
        there, path_of = plan["content"], plan["scene"]["path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    mine = same_scene(there, scene.content) or path_of == scene.imagery.path  # which was changed
    return None if mine else f"{path_of}, unfinished"


def grounds_of(origin: Origin, raster: Any, store: Store) -> list[int]:
    """Return the grounds of ``store`` that a map may lie on: those of its scene, or, if the store
    does not know what its grounds were read from, those of its name."""
    fitting = []
    for number, ground in enumerate(store.contents.grounds):
        known = store.origins[number]
        if known and origin.content:
            ours = same_scene(known, origin.content)
        else:
            ours = stem(ground.name) == pathlib.Path(raster.name).stem
        if ours and on_ground(raster, ground):
            fitting.append(number)
    return fitting


def on_ground(raster: Any, ground: Any) -> bool:
    """Return whether ``raster`` has the pixels of ``ground``."""
    import numpy as np

    here = ground.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    same_size = (ground.height, ground.width) == (raster.height, raster.width)
    return same_size and np.allclose(tuple(raster.transform)[:6], here, rtol=1e-9, atol=1e-6)


def stands(paths: Sequence[pathlib.Path], wanted: Origin) -> bool:
    """Return whether the map ``wanted`` is finished, in the files ``paths``, its classes first.

    Says so, and if there is one of another model, which may be replaced. ConfigError if there is
    one of other settings, or what is no map.
    """
    path = paths[0]
    if not path.exists():
        return False
    there = read_origin(path)
    if there is None:
        raise ConfigError(
            f"{path}: is no map that swath predict made, and is not written over; move it away or "
            "delete it"
        )
    if there.model != wanted.model:
        log.info("%s: was made by another model; it is made anew", path)
        return False
    different = next(_differences(there.plan, wanted.plan), None)
    if different:
        raise ConfigError(
            f"{path}: was made with other settings: {different}; a finished map is not written "
            "over: move it away or delete it, and the same command makes this one"
        )
    if any(not p.exists() or _plan_of(p) != there.plan for p in paths[1:]):
        log.info("%s: is made again, for the layers beside it", path)
        return False
    log.info(
        "%s: is there, made by this model, of this scene, with these settings; it is left as it is",
        path,
    )
    return True


def _plan_of(path: pathlib.Path) -> Mapping[str, Any] | None:
    origin = read_origin(path)
    return None if origin is None else origin.plan


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield, in words, what two plans of one model differ in, but for what a machine chooses."""
    for name in dict.fromkeys([*wanted, *there]):
        old, new = there.get(name), wanted.get(name)
        if name == "arithmetic" and old and new:
            name, old, new = "train.precision", old[0], new[0]
        if old == new:
            continue
        if name == "scene" and old and new:
            pairs = ((key, old.get(key), new.get(key)) for key in dict.fromkeys([*new, *old]))
            yield from (
                f"the scene's {k} was {o!r} and is {n!r} now" for k, o, n in pairs if o != n
            )
        elif name in ("content", "ground", "swath"):
            whole = {"content": "bands", "ground": "grid", "swath": "release of Swath"}
            yield f"the {whole[name]}"
        else:
            name = name if "." in name else f"predict.{name}"
            yield f"{name} was {old!r} and is {new!r} now"


def remove_stale(folder: pathlib.Path, name: str, plan: Mapping[str, Any]) -> None:
    """Remove the layers beside the map ``name`` that are not of ``plan``, and say so."""
    for suffix in LAYERS[1:]:
        path = folder / f"{name}{suffix}.tif"
        origin = read_origin(path) if path.exists() else None
        if origin is not None and origin.plan != plan:
            path.unlink()
            pathlib.Path(f"{path}.aux.xml").unlink(missing_ok=True)
            log.info("%s: was removed: it belonged to the map that this one replaces", path)
