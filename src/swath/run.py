"""What each verb does with a run's settings, the same from the command line and from a notebook."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from swath import config, here
from swath.config import ConfigError, NoSuch, kind_of, place_of
from swath.data.files import check_assumed
from swath.data.split import Part
from swath.datasets import stac
from swath.log import counter
from swath.predict.settings import FOLDER as MAPS
from swath.settings import Run
from swath.train.job import MAPPED, check_trained, sorted_arguments

if TYPE_CHECKING:
    from swath.data.imagery import Imagery
    from swath.data.store import Store
    from swath.embed.found import Found
    from swath.embed.table import Table
    from swath.report.compare import Row
    from swath.train.dry import Layout

log = logging.getLogger(__name__)

_NO_SCENE = (
    "there is no scene to map: the store was not built from one; set predict.scene, such as "
    "predict.scene={path: FOLDER, sensor: sentinel2_l2a}"
)

BY_CHIP, ONCE = "a pixel counts in every chip that shows it", "every pixel counts once"
"""How figures of the model, chip by chip, and of its map count what they are made from."""

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def load(*arguments: str | pathlib.Path) -> Run:
    """Return the run that files, run folders and ``key=value`` words describe, in that order."""
    return config.load(Run, *sorted_arguments(arguments))


def _named(verb: _Verb) -> _Verb:
    """Let ``verb`` say which setting names a file that is not there."""

    @functools.wraps(verb)
    def named(run: Run, *args: Any, **more: Any) -> Any:
        try:
            return verb(run, *args, **more)
        except NoSuch as error:
            place = place_of(run, error.path)
            raise ConfigError(f"{place}: {error}" if place else str(error)) from error

    return cast(_Verb, named)


@_named
def build(run: Run, progress: bool = True) -> Store:
    """Return the store of ``run``, built first, or further, if the settings say how."""
    from swath.data.store import Store

    if run.build is None:
        return Store.open(run.data.store)
    _one_process("data build")
    from swath.data.build import build as made

    return made(
        run.build.dataset,
        run.data.store,
        run.build.split,
        threads=run.build.threads,
        compress=run.build.compress,
        progress=progress,
    )


def find(run: Run) -> list[str]:
    """Return a line on each item that a STAC catalogue has for ``run.build.dataset``."""
    return stac.about(_catalogue(run).find())


def fetch(run: Run, progress: bool = True) -> pathlib.Path:
    """Fetch the files of what :func:`find` tells; return the folder that they are in."""
    dataset = _catalogue(run)
    _one_process("data fetch")
    dataset.fetch(dataset.find(), progress)
    return pathlib.Path(dataset.folder) / dataset.collection


def _catalogue(run: Run) -> stac.Stac:
    dataset = None if run.build is None else run.build.dataset
    if isinstance(dataset, stac.Stac):
        return dataset
    kind = "not there" if dataset is None else f"of kind {kind_of(type(dataset))}"
    raise ConfigError(
        f"this verb looks into a STAC catalogue, and build.dataset is {kind}; set it, as "
        "build.dataset={kind: stac, catalogue: URL, collection: sentinel-2-l2a, ...}"
    )


def pictures(run: Run, samples: int = 12, part: Part = "train") -> list[pathlib.Path]:
    """Draw chips with their labels, and the split on the ground; return the files, by the store."""
    from swath.data.picture import chips_picture, split_picture
    from swath.data.shards import is_address

    _one_process("data show")
    if is_address(run.data.store):
        raise ConfigError(
            f"{run.data.store}: pictures are written beside the store, and this is an address; "
            "copy the store to a folder, and set data.store to that"
        )
    store = build(run)
    folder = pathlib.Path(run.data.store)
    chips, split = (folder.with_name(f"{folder.name}-{what}.png") for what in ("chips", "split"))
    chips_picture(store, chips, samples, part)
    split_picture(store, split, run.data.split)
    return [chips, split]


def statistics(run: Run) -> None:
    """Print samples, classes by part, and bands of the store."""
    from rich.console import Console

    from swath.data.summary import summary

    Console().print(summary(build(run, progress=False), run.data.split))


@_named
def train(run: Run) -> dict[str, Any]:
    """Train, or go on training, in the run folder; return the last figures, as in metrics.jsonl."""
    job = run.job()
    if run.build is not None:
        built_once(run)
    from swath.train.setup import train as trained

    return trained(job, settings=run)


def after_training(run: Run, figures: dict[str, Any]) -> str:
    """Return where the model is that :func:`train` left, how good it is, and what can be done next.

    figures: as ``train`` returned them.
    """
    from swath.data.store import Store
    from swath.train.export import WEIGHTS
    from swath.train.progress import scores

    told = "  ".join(f"{name} {value:.4f}" for name, value in scores(figures))
    labelled = run.task is not None and run.task.labels is not None
    if told and labelled and Store.open(run.data.store).contents.label.per_pixel:
        told += f"  ({BY_CHIP})"
    verbs = ["predict"] if labelled and (run.predict.scene or _built_from(run)) else []
    score = "evaluate"
    if run.task is not None and run.task.taught:  # it, or its teacher, is alone by now
        score = "embed" if Store.open(run.data.store).contents.label.kind == "none" else "probe"
    verbs += [score, *(["baseline"] if run.baselines else []), "report"]
    chosen = f"{run.place / WEIGHTS}: the model after update {figures['update']}"
    after = ", ".join(f"swath {verb} {run.place}" for verb in verbs)
    return f"{chosen}{'  ' if told else ''}{told}\nnext: {after}"


def export(run: Run) -> pathlib.Path:
    """Write the model of a run that is not at its end, as it stands; return its weights' file.

    It is that of the best evaluation so far, or of the newest checkpoint. ``train`` still goes on
    with the run, and writes the model of the end in its place.
    """
    from swath.train.unfinished import export as exported

    _one_process("export")
    return exported(run.job())


def export_for(run: Run, names: str) -> pathlib.Path:
    """Write the model of a run by the ``names`` of other programs, "timm" or "hf"; return where.

    ConfigError for other names, or a network that others do not have.
    """
    from swath.train.foreign import LAYOUTS, write_foreign

    _one_process("export")
    if names not in LAYOUTS:
        raise ConfigError(f"--names={names}: there are {' and '.join(LAYOUTS)}")
    return write_foreign(run.place, names)


@_named
def dry_run(run: Run, ranks: int) -> Layout:
    """Return how training would lie on ``ranks`` ranks: memory, exchanges, updates; starts none.

    No pixels are read: what samples look like is told by the store, or, where there is none yet, by
    headers and labels of the files that ``build`` names. ConfigError if neither is there, or if the
    settings do not fit so many ranks.
    """
    from swath.data.store import Store
    from swath.train.dry import lay_out

    _one_process("train --dry-run")
    job = run.job()
    if Store.exists(run.data.store):
        contents = Store.open(run.data.store, unfinished=True).contents
    elif run.build is not None:
        contents = run.build.dataset.open().contents
    else:
        raise ConfigError(
            f"{run.data.store}: there is no store, and no build: that says what samples look like;"
            " a dry run has to know their bands, size and classes. Build the store, or describe"
            " samples like them, as build.dataset={kind: synthetic, size: 224, bands: 12, label:"
            " class, classes: 19}"
        )
    return lay_out(job, contents, ranks)


def _one_process(verb: str) -> None:
    """Raise ConfigError if others were started beside this process: they would write one file."""
    if here.processes() > 1:
        raise ConfigError(
            f"swath {verb} runs as one process, and {here.processes()} were started; start it "
            "without torchrun, or with srun -n 1"
        )


def built_once(run: Run) -> None:
    """Build the store in this process, unless others were started beside it: they would collide."""
    if here.ranks() == 1:
        build(run)
        return
    from swath.data.store import Store

    if not Store.exists(run.data.store):
        raise ConfigError(
            f"{run.data.store}: there is no store, and {here.ranks()} processes cannot build it at "
            "once; run swath data build first"
        )


def _check_built(run: Run, store: Store) -> None:
    """Raise ConfigError if ``store`` is what the model of ``run`` was trained on, and ``run.build``
    would make another one: it is taken as it is."""
    from swath.data.build import differing
    from swath.train.export import read_about

    trained = read_about(run.place).trained
    if run.build is None or trained.store != store.fingerprint:
        return
    different = differing(store, run.build.dataset, run.build.split)
    if different:
        raise ConfigError(
            f"{store.path}: was built from other settings: {different}; a model is scored on the "
            "store as it is: set that back, or build another (data.store) and train on it"
        )


@_named
def evaluate(run: Run) -> dict[str, dict[str, Any]]:
    """Score the model, and its map if there is one, on the test part; write scores.json.

    "model": windows of the test part one by one; where chips overlap, a pixel counts in each.
    "map": the maps of the store's scenes, every held-out pixel once, with areas and their standard
    errors. "counting" says which of both it is. Of several ranks all score the
    model; the first alone scores the maps and writes, the others return "model" only. A map that
    another model made, or of another scene on the same ground, is left out, with a warning.

    ConfigError if some of the test part was trained on, the run folder belongs to a model of other
    settings, or there are maps that its task's answers cannot make.
    """
    from swath.data.store import Store
    from swath.predict.evaluate import maps_to_score, score_maps, write_scores
    from swath.predict.layers import check_mappable
    from swath.train.export import fingerprint, load_model
    from swath.train.score import score

    job = run.job()
    check_trained(run.place, job)
    store = Store.open(run.data.store)
    _check_built(run, store)
    scores = {"model": score(job)}
    if store.contents.label.per_pixel:
        scores["model"]["counting"] = BY_CHIP
    if here.rank():
        return scores
    folder = run.place / MAPS
    ours = []
    if store.contents.label.kind == "mask" and any(folder.glob("*.tif")):
        model = load_model(run.place)
        check_mappable(model.label, model.outputs)
        ours = maps_to_score(folder, store, fingerprint(model))
    if ours:
        scores["map"] = score_maps(ours, store, run.data.split)
        scores["map"]["counting"] = ONCE
        if scores["model"].get("other_store"):
            scores["map"] |= {"other_store": True, "share_touching": None}
            scores["map"].pop("share_same_object", None)
    for name in ("model", "map"):
        write_scores(run.place, name, scores.get(name))
    return scores


@_named
def predict(run: Run, progress: bool = True) -> pathlib.Path:
    """Map ``predict.scene``, or the scene the store was built from; return the map's file.

    ConfigError if there is no scene, the model cannot take it, or the run folder belongs to a model
    of other settings. Ranks that the launcher started share its strips.
    """
    from swath.predict.map import predict as mapped

    files = _over_scene(run, mapped, run.predict, run.place / MAPS, progress=progress)
    return next(iter(files.values()))


def _over_scene(run: Run, made: Callable[..., Any], *more: Any, progress: bool) -> Any:
    """Return what ``made`` makes of the model and the scene of ``run``, and of ``more``."""
    from swath.parallel.world import pick_device
    from swath.train.export import load_model

    imagery = _scene(run)
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


@_named
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


@_named
def embed_scene(run: Run, progress: bool = True) -> pathlib.Path:
    """Return a GeoTIFF in the run folder's embed/ with the model's features of each patch of
    ``predict.scene``, or of the scene that the store was built from; beside it a picture.

    ConfigError as for :func:`embed` and :func:`predict`. Ranks share its strips.
    """
    from swath.embed.scene import embed_scene as made
    from swath.embed.scene import picture
    from swath.embed.settings import FOLDER

    path = _over_scene(run, made, run.embed, run.predict, run.place / FOLDER, progress=progress)
    if not here.rank():
        picture(path)
    return path


@_named
def similar(
    run: Run, query: str, count: int = 8, progress: bool = True
) -> tuple[list[Found], list[pathlib.Path]]:
    """Return the place that ``query`` names and the ``count`` places of the store most like it by
    the cosine of their embeddings; and the files with them, csv, geojson and png.

    query: name or number of a sample, or "longitude,latitude" of a place that a sample shows.
    ConfigError as for :func:`embed`, if there is no such sample, or there are not so many places.
    """
    from swath.data.store import Store
    from swath.embed.found import write
    from swath.embed.places import Places, read_place
    from swath.embed.similar import SCORE
    from swath.embed.similar import similar as found
    from swath.predict.settings import stem

    _one_process("similar")
    places = Places(Store.open(run.data.store), _embedded(run, progress, whole=True))
    named = query in places.store.column("name") or "," not in query
    number = places.named(query) if named else places.at(*read_place(query))
    every = found(places, number, count)
    beside = places.table.path.with_name(f"{places.table.path.stem}-like-{stem(query)}")
    return every, write(places, every, SCORE, beside)


@_named
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

    _one_process("anomalies")
    places = Places(Store.open(run.data.store), _embedded(run, progress, whole=True))
    table = places.table
    scores = scored(table, run.anomaly, run.seed)
    every = strangest(places, scores, count)
    table.add(SCORE, scores)
    beside = table.path.with_name(f"{table.path.stem}-anomalies")
    return every, write(places, every, SCORE, beside)


@_named
def probe(run: Run, progress: bool = True) -> str:
    """Score the model's features as they are, by k nearest neighbours and a linear layer that learn
    from the training part; return the table, which is also written beside the embeddings.

    ConfigError as for :func:`embed`, if some of the test part was trained on, or if there are no
    classes to tell apart.
    """
    from swath.embed.probe import markdown, notes, write
    from swath.embed.probe import probe as scored
    from swath.train.export import read_about

    _one_process("probe")
    job = run.job()
    data = run.data.alone("bands" in job.model.asks).open()
    told = notes(data.select("test"), read_about(run.place).trained)
    table = _embedded(run, progress)
    rows = scored(table, run.probe, run.seed, run.compute.threads or here.cores())
    files = write(table, rows, told)
    return "\n".join([markdown(rows), *told, *map(str, files)])


def _scene(run: Run) -> Imagery | None:
    """Return what there is to map: ``predict.scene``, taken for the sensor of the store's images if
    it names none; else the scene that the store was built from."""
    scene = run.predict.scene
    if scene is not None and scene.sensor is None and run.build is not None:
        scene = run.build.dataset.assume(scene)
        if scene.sensor is not None:
            check_assumed(scene)
            log.info("predict.scene names no sensor; it is taken for %s, the store's", scene.sensor)
    return scene or _built_from(run)


def _built_from(run: Run) -> Imagery | None:
    return None if run.build is None else run.build.dataset.scene()


def baseline(run: Run) -> list[dict[str, Any]]:
    """Fit and score the run's baselines on the test part; write and return baselines.json."""
    from swath.baselines import fit_and_score
    from swath.files import write_json
    from swath.predict.evaluate import figures_plain
    from swath.report.compare import BASELINES

    _one_process("baseline")
    if not run.baselines:
        raise ConfigError("there are no baselines; add some, as baselines: [{kind: forest}]")
    store = build(run, progress=False)
    rows = [
        figures_plain(
            fit_and_score(
                one,
                store,
                run.data.split,
                bands=run.data.bands,
                labels=run.data.labels,
                seed=run.seed,
                threads=run.compute.threads or here.cores(),
            )
        )
        for one in run.baselines
    ]
    run.place.mkdir(parents=True, exist_ok=True)
    write_json(run.place / BASELINES, rows)
    return rows


def compared(run: Run) -> list[Row]:
    """Return a row for the model and one for each baseline that was scored: name and figures.

    The model is scored by its map if there is one, so that, as with baselines on pixels, every
    held-out pixel counts once.
    """
    from swath.report import compare

    return compare.compared(run.place, None if run.model is None else kind_of(type(run.model)))


def comparison(run: Run) -> str:
    """Return the table of :func:`compared`, and what it has to be read with."""
    from swath.report.compare import table

    return table(compared(run))


def report(run: Run) -> pathlib.Path:
    """Write report.html, one page about the run folder that opens without a network."""
    from swath.report.compare import read_scores
    from swath.report.page import write

    _one_process("report")
    if run.model is not None:
        check_trained(run.place, run)
    return write(
        run.place,
        name=run.name,
        settings=run,
        data=run.data,
        rows=compared(run),
        scores=read_scores(run.place),
        imagery=_scene(run),
        precision=run.train.precision,
        compute=run.compute,
    )
