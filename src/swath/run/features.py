"""Verbs on the model's features: of samples and scenes, places alike and strange, their worth."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from swath import here
from swath.log import counter
from swath.run.scene import over_scene
from swath.run.start import named, one_process
from swath.settings import Run
from swath.train.job import MAPPED, check_trained

if TYPE_CHECKING:
    from swath.embed.found import Found
    from swath.embed.table import Table


@named
def embed(run: Run, progress: bool = True) -> Table:
    """Return the model's features of every sample of the store, as a table in the run folder's
    embed/, made first, or further, if it is not there.

    ConfigError if the model has no such features, takes other bands than the store has, or the run
    folder belongs to a model of other settings. Ranks that the launcher started share its files.
    """
    return _embedded(run, progress)


def _embedded(run: Run, progress: bool, whole: bool = False) -> Table:
    """Return the embeddings of the store of ``run``; whole: of samples, also where each pixel has a
    label, unless patches are asked for."""
    from swath.embed.embedder import Embedder
    from swath.embed.samples import embed_samples
    from swath.embed.settings import FOLDER
    from swath.parallel.world import pick_device
    from swath.train.export import load_model
    from swath.train.score import data_of

    job = run.job()
    check_trained(run.place, job, (*MAPPED, "data.bands", "data.split"))
    model = load_model(run.place)
    settings = run.embed
    if whole:
        settings = dataclasses.replace(settings, pool=Embedder.of(model, settings).pool)
    with counter(progress and not here.rank(), "samples") as told:
        return embed_samples(
            model,
            data_of(job, model),
            settings,
            run.place / FOLDER,
            device=pick_device(run.compute.device),
            precision=run.train.precision,
            compute=run.compute,
            windows_at_once=run.predict.windows_at_once,
            progress=told,
        )


@named
def embed_scene(run: Run, progress: bool = True) -> pathlib.Path:
    """Return a GeoTIFF in the run folder's embed/ with the model's features of each patch of
    ``predict.scene``, or of the scene that the store was built from; beside it a picture.

    ConfigError as for :func:`embed` and :func:`predict`. Ranks share its strips.
    """
    from swath.embed.scene import embed_scene as made
    from swath.embed.scene import picture
    from swath.embed.settings import FOLDER

    path = over_scene(run, made, run.embed, run.predict, run.place / FOLDER, progress=progress)
    if not here.rank():
        picture(path)
    return path


@named
def similar(
    run: Run, query: str, count: int = 8, progress: bool = True, away_km: float = 0.0
) -> tuple[list[Found], list[pathlib.Path]]:
    """Return the place that ``query`` names and the ``count`` places of the store most like it by
    the cosine of their embeddings; and the files with them, csv, geojson and png.

    query: name or number of a sample, or "longitude,latitude" of a place that a sample shows.
    away_km: how far from it they have to be. ConfigError as for :func:`embed`, if there is no such
    sample, or there are not so many places.
    """
    from swath.data.store import Store
    from swath.embed.found import write
    from swath.embed.places import Places, read_place
    from swath.embed.similar import SCORE
    from swath.embed.similar import similar as found
    from swath.predict.settings import stem

    one_process("similar")
    places = Places(Store.open(run.data.store), _embedded(run, progress, whole=True))
    named = query in places.store.column("name") or "," not in query
    number = places.named(query) if named else places.at(*read_place(query))
    every = found(places, number, count, away_km)
    far = f"-{away_km:g}km" if away_km else ""
    beside = places.table.path.with_name(f"{places.table.path.stem}-like-{stem(query)}{far}")
    return every, write(places, every, SCORE, beside)


@named
def anomalies(
    run: Run, count: int = 8, progress: bool = True
) -> tuple[list[Found], list[pathlib.Path]]:
    """Return the ``count`` places of the store that are most unlike its training part, by the
    model's features; and the files with them, csv, geojson and png.

    The scores of all stand with the embeddings, as the array ``anomaly``. ConfigError as for
    :func:`embed`, and if there are too few training samples or places.
    """
    from swath.data.store import Store
    from swath.embed.anomaly import SCORE, strangest
    from swath.embed.anomaly import anomalies as scored
    from swath.embed.found import write
    from swath.embed.places import Places

    one_process("anomalies")
    places = Places(Store.open(run.data.store), _embedded(run, progress, whole=True))
    table = places.table
    scores = scored(table, run.anomaly, run.seed)
    every = strangest(places, scores, count)
    table.add(SCORE, scores)
    beside = table.path.with_name(f"{table.path.stem}-anomalies")
    return every, write(places, every, SCORE, beside)


@named
def probe(run: Run, progress: bool = True) -> str:
    """Score the model's features as they are, by k nearest neighbours and a linear layer that learn
    from the training part; return the table, which is also written beside the embeddings.

    ConfigError as for :func:`embed`, if some of the test part was trained on, or if there are no
    classes to tell apart.
    """
    from swath.embed.probe import check_classes, markdown, notes, write
    from swath.embed.probe import probe as scored
    from swath.train.export import read_about

    one_process("probe")
    job = run.job()
    data = run.data.alone("bands" in job.model.asks).open()
    check_classes(data.store.contents.label.kind, data.store.path)  # before anything is embedded
    told = notes(data.select("test"), read_about(run.place).trained)
    table = _embedded(run, progress)
    with counter(progress, "labels") as step:
        threads = run.compute.threads or here.cores()
        rows = scored(table, run.probe, run.seed, threads, step)
    files = write(table, rows, told)
    return "\n".join([markdown(rows), *told, *map(str, files)])
