"""A map of a whole scene in bounded memory: windows in, strips of rows out.

The scene is read once, from north to south. Each row of windows goes through the model, its
answers are blended, and the rows that no later window touches are written and ticked off in a
ledger; interrupted, the map goes on with the strips that are not. At any time there are in memory
the pixels and the sums of two rows of windows, and on a processor what the model makes of a window
for each core, whatever the height of the scene.

Several ranks have strips of their own and write them into one file. The windows that reach from the
strips of one into those of the next are computed by both, so that nothing has to be sent.

The map is a function of model, scene, settings and arithmetic alone: not of the number of windows
in one pass, of their order, of ranks and cores, or of where it was interrupted. Arithmetic is the
precision, the kind of device, and whether the model is compiled; a map begun with another is begun
anew, so that no map is half the one, half the other. The precision is that of training, by the same
means (parameters in its type, matrix products in bfloat16 for bf16), so that a map and a run's own
score are made alike.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from collections.abc import Mapping as Facts
from contextlib import ExitStack
from typing import Any

import torch

from swath.data.imagery import Scene
from swath.lock import lock
from swath.parallel.world import World
from swath.predict.files import Files
from swath.predict.layers import Layer, layers_of, pixels_of
from swath.predict.ledger import checksum
from swath.predict.mapping import Mapping
from swath.predict.origin import Origin, apart_name, name_for, stands
from swath.predict.settings import Predict, stem
from swath.predict.tiles import deal
from swath.predict.together import check_alike, meet, patient
from swath.train.export import LoadedModel
from swath.train.precision import arithmetic
from swath.train.settings import Compute

Progress = Callable[[int, int], None]
"""Told the strips done and the strips in all: those of this rank and those that were there."""


def predict(
    model: LoadedModel,
    scene: Scene,
    settings: Predict,
    folder: str | pathlib.Path,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    compute: Compute = Compute(),  # noqa: B008  (frozen)
    progress: Progress = lambda done, strips: None,
    world: World | None = None,
    layers: list[Layer] | None = None,
    unit: int = 1,
    made_of: Facts[str, Any] = {},
) -> dict[str, pathlib.Path]:
    """Map ``scene`` and return the files written below ``folder``, by what they hold.

    "classes" (or "values", or "flags") is <scene's name>.tif, or, where that is the map of another
    scene of the same name, <name>-<six letters of its content>.tif; "probabilities" and
    "uncertainty", if asked for, stand beside it. All have the scene's grid and no-data where no
    band was observed. A map begun before with the same model, scene and settings is gone on with,
    one that is finished is left as it is. That of another model is replaced, with its layers.

    precision: as in train.precision; give the one that the model was trained in.
    compute: its threads and compile are used.
    layers: the files in place of those that the model's labels ask for. unit: pixels of the scene
        to a side of the map's. made_of: what the pixels depend on beside model, scene and settings.
    world: the ranks, each of which has a device; None: those that the launcher started.

    Raises ConfigError if the scene lacks a band of the model, settings do not fit the model, a
    finished map of other settings is there, ranks would make different maps, or another process
    maps this scene there.
    """
    if world is None:
        with World.start("cpu") as world:
            return predict(
                model,
                scene,
                settings,
                folder,
                device=device,
                precision=precision,
                compute=compute,
                progress=progress,
                world=world,
                layers=layers,
                unit=unit,
                made_of=made_of,
            )
    folder = pathlib.Path(folder)
    with ExitStack() as held, arithmetic(precision, compute), patient(world) as ranks:
        file = folder / f".{stem(scene.name)}.lock"
        ranks.first_does(lambda: held.enter_context(lock(file, "swath predict")))
        where, threads = torch.device(device), torch.get_num_threads()
        abreast = 1
        if where.type == "cpu":
            # Kernels add up otherwise with other numbers of threads. So each window has one, and
            # as many windows go side by side: the map is the same on any number of cores.
            torch.set_num_threads(1)
            abreast = threads
        mapping = Mapping(model, scene, settings, where, precision, compute.compile, abreast, unit)
        layers = layers or layers_of(model.label, model.outputs, settings)
        plan = {**mapping.plan(layers), **made_of}
        origin = Origin.of(scene, mapping.fingerprint, plan)

        def files_of(name: str) -> Files:
            return Files(layers, folder, name, scene, origin, mapping.tiling, plan, unit)

        chosen = torch.zeros(2, dtype=torch.int64)  # whether its name is apart, and it is there

        def choose() -> None:
            name = name_for(folder, scene)
            chosen[0] = name != stem(scene.name)
            chosen[1] = stands([*files_of(name).paths.values()], origin)

        ranks.first_does(choose)
        ranks.broadcast([chosen])
        apart, there = chosen.tolist()
        files = files_of(apart_name(scene) if apart else stem(scene.name))
        if not there:
            _write(mapping, files, progress, ranks)
        return files.paths


def _write(mapping: Mapping, files: Files, progress: Progress, world: World) -> None:
    """Make the strips that are not there, this rank its own, and the files of all of them."""
    check_alike(world, {key: part for key, part in files.plan.items() if key != "files"})
    done = torch.zeros(len(mapping.tiling.rows), dtype=torch.int64)

    def begin() -> None:
        done[files.begin()] = 1

    world.first_does(begin)
    world.broadcast([done])
    missing = (done == 0).nonzero().flatten().tolist()
    mine = deal(mapping.tiling, missing, world.ranks)[world.rank]
    there = len(done) - len(missing)
    told = there + sum(map(len, mine))
    progress(there, told)
    ledger = files.ledger(world.rank)
    with files.joined() as write:
        for strip, means, observed in (strip for run in mine for strip in mapping.strips(run)):
            pixels = [pixels_of(layer, means, observed) for layer in files.layers]
            write(strip, pixels)
            ledger.add(strip, checksum(pixels))
            there += 1
            progress(there, told)
    meet(world)
    world.first_does(files.finish)
