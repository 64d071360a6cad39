"""A scene through the model: which one a run has, and its map."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from swath import here
from swath.config import ConfigError
from swath.data.files import check_assumed
from swath.log import counter
from swath.predict.settings import FOLDER as MAPS
from swath.run.start import named
from swath.settings import Run
from swath.train.job import MAPPED, check_trained

if TYPE_CHECKING:
    from swath.data.imagery import Imagery

log = logging.getLogger(__name__)

_NO_SCENE = (
    "there is no scene to map: the store was not built from one; set predict.scene, such as "
    "predict.scene={path: FOLDER, sensor: sentinel2_l2a}"
)


@named
def predict(run: Run, progress: bool = True) -> pathlib.Path:
    """Map ``predict.scene``, or the scene the store was built from; return the map's file.

    ConfigError if the model answers with nothing to map, there is no scene, the model cannot take
    it, or the run folder belongs to a model of other settings. Ranks that the launcher started
    share its strips.
    """
    from swath.predict.layers import check_mappable
    from swath.predict.map import predict as mapped
    from swath.train.export import read_about
    from swath.train.init import ABOUT

    if (run.place / ABOUT).exists():  # before a scene is asked for, which may not help
        about = read_about(run.place)
        check_mappable(about.label, about.outputs)
    files = over_scene(run, mapped, run.predict, run.place / MAPS, progress=progress)
    return next(iter(files.values()))


def over_scene(run: Run, made: Callable[..., Any], *more: Any, progress: bool) -> Any:
    """Return what ``made`` makes of the model and the scene of ``run``, and of ``more``."""
    from swath.parallel.world import pick_device
    from swath.train.export import load_model

    imagery = scene_of(run)
    if imagery is None:
        raise ConfigError(_NO_SCENE)
    if run.model is not None:
        check_trained(run.place, run, MAPPED)
    with counter(progress and not here.rank(), "strips") as told:
        return made(
            load_model(run.place),
            imagery.open(),
            *more,
            device=pick_device(run.compute.device),
            precision=run.train.precision,
            compute=run.compute,
            progress=told,
        )


def scene_of(run: Run) -> Imagery | None:
    """Return what there is to map: ``predict.scene``, taken for the sensor of the store's images if
    it names none; else the scene that the store was built from."""
    scene = run.predict.scene
    if scene is not None and scene.sensor is None and run.build is not None:
        scene = run.build.dataset.assume(scene)
        if scene.sensor is not None:
            check_assumed(scene)
            log.info("predict.scene names no sensor; it is taken for %s, the store's", scene.sensor)
    return scene or built_from(run)


def built_from(run: Run) -> Imagery | None:
    return None if run.build is None else run.build.dataset.scene()
