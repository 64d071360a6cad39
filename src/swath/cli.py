"""The command line: ``swath VERB [file.yaml ...] [key=value ...]``.

A verb takes YAML files, laid over one another in order, then ``key=value`` words; or a run folder,
which stands for the settings that it was made from. What a verb does is in ``swath.run``; here
are only words. Exit codes are in ``swath.exits``: 0 done, 1 a fault of ours or a run that diverged,
2 something you can fix, 75 ended by SIGTERM or SIGUSR1, 76 because a rank was lost, 130 by Ctrl-C.
After the last three the same command goes on; after a signal training saves before it leaves.
"""

import contextlib
import errno
import faulthandler
import importlib
import json
import sys
import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from swath import exits, here, log, machine
from swath.config import ConfigError
from swath.parallel import launch
from swath.parallel.end import RankFailed
from swath.train.interrupt import Interrupted, leaving_at_once
from swath.version import VERSION

if TYPE_CHECKING:
    from swath.settings import Run

app = typer.Typer(
    name="swath",
    help="Deep learning for Earth observation: from a scene to a map.\n\n"
    "A verb takes YAML files, then key=value words that win over them; or a run folder. "
    "key=value sets one field; key={...} replaces all of key, whatever the files say there.\n\n"
    "The whole way: swath train mine.yaml, which writes to a run folder, runs/NAME; then, with "
    "that folder or with mine.yaml, swath predict, evaluate, baseline and report.",
    epilog="What can be set: swath show --docs. What there is to choose from: swath show --kinds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(
    help="Stores: build one from files, look at it, print its statistics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data, name="data")


def _version(asked: bool) -> None:
    if asked:
        print(f"swath {VERSION}")
        raise typer.Exit


@app.callback()
def _swath(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass  # typer has the options of the whole program on a function, whose verbs do the work


Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE.yaml | RUN_FOLDER | KEY=VALUE",
        help="settings files, or the folder of a run, which knows its settings; then words such as "
        "seed=1 or optim.lr=1e-3; predict.scene={path: a.tif} replaces all of predict.scene",
        show_default=False,
    ),
]

Ranks = Annotated[
    int,
    typer.Option(help="processes to start on this computer; torchrun and srun start their own"),
]


@app.command(short_help="Train a model, or go on training it.")
def train(
    settings: Settings = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            help="processes to start on this computer (default: 1); torchrun and srun start their "
            "own. With --dry-run: ranks to lay out, any number",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="train nothing: print how the run would lie on --ranks"),
    ] = False,
    machine_: Annotated[
        str,
        typer.Option(
            "--machine",
            help="with --dry-run: a name of swath show --machines, or a YAML file; default: "
            "compute.machine",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="with --dry-run: print JSON")] = False,
) -> None:
    """Train a model; in a run folder that exists, go on where it stopped.

    Builds the store first if the settings say how and it is not there. Writes model.safetensors,
    metrics.jsonl and checkpoints to the run folder (default: runs/NAME). SIGTERM and SIGUSR1 save
    and leave with exit code 75; the same command then continues the same curve.

    With --dry-run nothing is built or trained: memory of each rank, exchanges and updates are
    printed, for any number of ranks, on this one process.
    """
    from swath import run

    chosen = run.load(*settings or [])
    if dry_run:
        _dry_run(chosen, ranks, machine_, as_json)
        return
    if machine_ or as_json:
        raise ConfigError(
            f"{'--machine' if machine_ else '--json'} has no effect without --dry-run, which "
            "prints how a run would lie on ranks"
        )
    if ranks is not None and ranks != 1:
        launch.check(ranks)
        run.build(chosen)  # several processes could not
        _ranks("train", settings, ranks, chosen)
    figures = run.train(chosen)
    if not here.rank():
        print(run.after_training(chosen, figures))


@app.command(short_help="Write the model of an unfinished run, or for other programs.")
def export(
    settings: Settings = None,
    names: Annotated[
        str | None, typer.Option(help="For other programs: timm, or hf (Hugging Face).")
    ] = None,
) -> None:
    """Write the model of a run that has not come to its end: the best so far.

    That is the model of the best evaluation, or of the newest checkpoint if nothing was evaluated.
    swath train still goes on with the run, and writes the model of the end in its place.

    With --names the model that the run has is written by the names of other programs:
    timm.safetensors, or the folder hf, which transformers opens.
    """
    from swath import run

    chosen = _chosen("export", settings)
    print(run.export(chosen) if names is None else run.export_for(chosen, names))


@app.command(short_help="Score the model, and its map, on the held-out part.")
def evaluate(settings: Settings = None, ranks: Ranks = 1) -> None:
    """Score the trained model, and its map if there is one, on the held-out part.

    Of a map also the accuracies and areas of each class, and its confusion.
    """
    from swath import run
    from swath.report.classes import table

    chosen = _chosen("evaluate", settings)
    if ranks != 1:
        _ranks("evaluate", settings, ranks, chosen)
    for name, figures in run.evaluate(chosen).items():
        counting = f" ({figures['counting']})" if "counting" in figures else ""
        _figures(figures, "  ", f"{name}, on the held-out part{counting}:")
        if "confusion" in figures:
            print(f"\n{table(figures)}")


@app.command(short_help="Map a scene.")
def predict(settings: Settings = None, ranks: Ranks = 1) -> None:
    """Map a scene with the trained model: a Cloud-Optimised GeoTIFF in the run folder's map/.

    Without predict.scene, the scene that the store was built from. Interrupted, the same command
    goes on at the next strip.
    """
    from swath import run

    chosen = _chosen("predict", settings)
    if ranks != 1:
        _ranks("predict", settings, ranks, chosen)
    made = run.predict(chosen)
    if not here.rank():
        print(made)


@app.command(short_help="Take the model's features of samples.")
def embed(
    settings: Settings = None,
    ranks: Ranks = 1,
    scene: Annotated[
        bool, typer.Option("--scene", help="of a whole scene, as swath predict maps it: GeoTIFF")
    ] = False,
) -> None:
    """Take the trained model's features of every sample of the store: Zarr in the run folder.

    They stand in embed/, with part, class, place and name of each sample; xarray opens them. Which
    features is said by embed.layer and embed.pool. Interrupted, the same command goes on. With
    --scene: a GeoTIFF with a vector for each patch, and one of its principal components in colours.
    """
    from swath import run

    chosen = _chosen("embed", settings)
    if ranks != 1:
        _ranks("embed", [*(settings or []), *["--scene"] * scene], ranks, chosen)
    if scene:
        path = run.embed_scene(chosen)
        if not here.rank():
            print(path)
        return
    made = run.embed(chosen)
    if not here.rank():
        each = " x ".join(map(str, (made.samples, *made.grid)))
        print(f"{made.path}: {each} vectors of {made.width}")


@app.command(short_help="Find places like a given one.")
def similar(
    settings: Settings = None,
    sample: Annotated[str, typer.Option(help="name or number of a sample of the store")] = "",
    at: Annotated[str, typer.Option(help="a place: longitude,latitude in degrees")] = "",
    count: Annotated[int, typer.Option(help="places to find")] = 8,
) -> None:
    """Find the places of the store that are most like a sample, or like what lies at a place.

    Prints a table, and leaves it in the run folder's embed/ as csv, as GeoJSON for QGIS, and as a
    picture of the chips. None of them overlaps the query or a better one.
    """
    from swath import run
    from swath.embed.found import text
    from swath.embed.similar import SCORE

    if bool(sample) == bool(at):
        raise ConfigError(
            "like what? Name one of both: --sample NAME, or --at LON,LAT, as --at 13.1,52.4"
        )
    if at:
        from swath.embed.places import read_place

        read_place(at)
    every, files = run.similar(_chosen("similar", settings), at or sample, count)
    print(text(every, SCORE), *files, sep="\n")


@app.command(short_help="Find places unlike all others.")
def anomalies(
    settings: Settings = None,
    count: Annotated[int, typer.Option(help="places to tell")] = 8,
) -> None:
    """Score how unlike the training part's places each place of the store is, by its features.

    Prints the strangest, none of which overlaps another, and leaves them in the run folder's embed/
    as csv, as GeoJSON for QGIS, and as a picture of the chips. The scores of all stand with the
    embeddings, as the array anomaly.
    """
    from swath import run
    from swath.embed.anomaly import SCORE
    from swath.embed.found import text

    every, files = run.anomalies(_chosen("anomalies", settings), count)
    print(text(every, SCORE), *files, sep="\n")


@app.command(short_help="Score the model's features as they are.")
def probe(settings: Settings = None) -> None:
    """Score the trained model's features without training it further.

    k nearest neighbours and a linear layer learn from 1, 10 and 100 % of the training part's
    labels (probe.shares) and are scored on the test part. Table (csv, md) and picture stand in the
    run folder's embed/.
    """
    from swath import run

    print(run.probe(_chosen("probe", settings)))


@app.command(short_help="Compare pretrained models: tasks, few labels, seeds.")
def assess(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE.yaml [KEY=VALUE]",
            help="what is compared (see docs/howto/assess.md), then words, such as seeds=[0]",
            show_default=False,
        ),
    ] = None,
    ranks: Ranks = 1,
    jobs: Annotated[
        int, typer.Option(help="processes to start that share the cells, each with its own")
    ] = 1,
) -> None:
    """Say what pretrained weights are worth: on several tasks, with 1, 10 and 100 % of the labels,
    over several seeds, beside the same network with random weights.

    The file names models (weights, or none), tasks (what swath train would be given), ways (knn,
    linear, probe, full, lora or your own words), shares of the labels and seeds. Each cell is
    measured once and kept in assess/NAME/cells; interrupted, the same command goes on, and several
    processes on one folder share the cells. Prints a table of means and deviations, and leaves it
    there as csv, json, md and as a page with pictures, report.html.
    """
    from swath.assess import verb as room

    chosen = room.load(settings or [])
    launch.check(ranks)
    if jobs < 1 or (jobs > 1 and ranks > 1):
        raise ConfigError(
            f"--jobs {jobs} --ranks {ranks}: at least 1 job, and either several jobs, which measure"
            " a cell each, or several ranks, which measure one together"
        )
    if ranks > 1:
        room.prepare(chosen)  # several processes could not build stores
        command = [sys.executable, "-m", "swath", "assess", *(settings or [])]
        sys.exit(launch.launch(command, ranks, chosen.place))
    with room.helped(settings or [], chosen, jobs):
        told = room.assess(chosen)
    if not here.rank():
        print(told)


@app.command(short_help="Score what the model must beat.")
def baseline(settings: Settings = None) -> None:
    """Fit and score the recipe's baselines on the same training and held-out parts."""
    from swath import run

    chosen = _chosen("baseline", settings)
    run.baseline(chosen)
    print(run.comparison(chosen))


@app.command(short_help="Write one page about the run.")
def report(settings: Settings = None) -> None:
    """Write report.html, one page that opens without a network, to the run folder."""
    from swath import run

    print(run.report(_chosen("report", settings)))


@app.command(short_help="Print the settings, and where each was written.")
def show(
    settings: Settings = None,
    docs: Annotated[bool, typer.Option("--docs", help="with the meaning of each field")] = False,
    only: Annotated[str, typer.Option(help="show only these parts, as train,model")] = "",
    kinds: Annotated[bool, typer.Option("--kinds", help="list what can be chosen")] = False,
    machines: Annotated[bool, typer.Option("--machines", help="list computers known")] = False,
) -> None:
    """Print the resolved settings as YAML: every value, and where it was written.

    swath show --docs alone prints all fields there are, with their meanings and defaults.
    """
    _spare_numpy()
    from swath import config, explain
    from swath.data import sensor
    from swath.settings import COLLECTIONS, Run
    from swath.train.job import sorted_arguments

    if machines:
        for name in machine.machines():
            print(f"{name:<16}  {machine.load_machine(name).about}")
        return
    if kinds:
        rows = list(explain.collections(COLLECTIONS))
        rows += [("sensor", name, sensor.about(name)) for name in sensor.sensors()]
        name_width, kind_width = (max(len(row[i]) for row in rows) for i in (0, 1))
        for name, kind, meaning in rows:
            print(f"{name:<{name_width}}  {kind:<{kind_width}}  {meaning}")
        return
    if docs and not settings:
        print(explain.reference(Run, only))
        return
    found = config.trace(Run, *sorted_arguments(settings or []))
    print(explain.explain(*found, meanings=docs, below=only))


@app.command(short_help="Print the JSON schema of the settings.")
def schema() -> None:
    """Print the JSON schema of a settings file, with which editors complete and check it."""
    _spare_numpy()
    from swath.schema import schema as made
    from swath.settings import Run

    print(json.dumps(made(Run), indent=1))


@data.command("build", short_help="Build the store, or go on building it.")
def data_build(settings: Settings = None) -> None:
    """Build the store that the settings describe; interrupted, go on where it stopped."""
    from swath import run

    print(run.build(_chosen("data build", settings)).path)


@data.command("find", short_help="List what a STAC catalogue has.")
def data_find(settings: Settings = None) -> None:
    """List the items of a STAC catalogue that the settings ask for: name, date, cloud, size."""
    from swath import run

    for line in run.find(_chosen("data find", settings)):
        print(line)


@data.command("fetch", short_help="Fetch what a STAC catalogue has.")
def data_fetch(settings: Settings = None) -> None:
    """Fetch the files of those items to a folder, as `swath data build` does before it cuts them;
    what is there already is left."""
    from swath import run

    print(run.fetch(_chosen("data fetch", settings)))


@data.command("show", short_help="Draw chips and the split.")
def data_show(
    settings: Settings = None,
    samples: Annotated[int, typer.Option(help="chips to draw")] = 12,
    part: Annotated[Literal["train", "val", "test"], typer.Option(help="of the split")] = "train",
) -> None:
    """Draw chips with their labels, and the split on the ground, as PNG beside the store."""
    from swath import run

    for path in run.pictures(_chosen("data show", settings), samples, part):
        print(path)


@data.command("stats", short_help="Print classes and bands.")
def data_stats(settings: Settings = None) -> None:
    """Print the store's classes per part, no-data share and band statistics."""
    from swath import run

    run.statistics(_chosen("data stats", settings))


def _dry_run(chosen: "Run", ranks: int | None, name: str, as_json: bool) -> None:
    """Print how ``chosen`` would lie on ``ranks`` ranks; of the machine ``name``, if any."""
    from swath import run

    if ranks is None:
        raise ConfigError("--dry-run needs to know how many ranks to lay out, as --ranks 4096")
    name = name or chosen.compute.machine or ""
    there = machine.load_machine(name) if name else None
    layout = run.dry_run(chosen, ranks)
    from swath.train.dry_text import plain, words

    print(json.dumps(plain(layout, there), indent=1) if as_json else words(layout, there))


class _WhenUsed(types.ModuleType):
    """A module that is imported when something of it is used for the first time.

    ``importlib.util.LazyLoader`` would not do: ``import numpy`` in a second file asks the module
    for its ``__spec__``, which LazyLoader takes for a use.
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)  # for those who have imported this one
        return getattr(module, name)


def _spare_numpy() -> None:
    """Let `import numpy` cost nothing until it is used. Verbs that only read settings import files
    that would compute with it, but do not; it took a fifth of the time of `swath show`."""
    sys.modules.setdefault("numpy", _WhenUsed("numpy"))


def _chosen(verb: str, settings: list[str] | None) -> "Run":
    """Return the run that ``settings`` describe; ConfigError if ``verb`` would not heed a word."""
    from swath import heed, run

    chosen = run.load(*settings or [])
    heed.check(verb, settings or [], chosen)
    return chosen


def _ranks(verb: str, settings: list[str] | None, ranks: int, chosen: "Run") -> NoReturn:
    """Do ``verb`` in ``ranks`` processes on this computer, and end as they do."""
    command = [sys.executable, "-m", "swath", verb, *(settings or [])]
    sys.exit(launch.launch(command, ranks, chosen.place, chosen.parallel))


def _figures(figures: dict[str, Any], head: str = "", title: str = "") -> None:
    """Print figures that are numbers, a line each; of several ranks the first does."""
    if here.rank():
        return
    if title:
        print(title)
    for name, value in figures.items():
        if isinstance(value, int | float):
            print(
                f"{head}{name:<24} {value:.4f}"
                if isinstance(value, float)
                else f"{head}{name:<24} {value}"
            )


def main() -> None:
    """Run the command line; what a user can fix becomes one line on stderr and exit code 2, said
    once by several ranks."""
    if not faulthandler.is_enabled():  # a Bus error, say, tells where: see docs/howto/resume.md
        faulthandler.enable(2, all_threads=False)
    try:
        log.start(rank=here.rank(), ranks=here.ranks())
        # One of several ranks may be in an exchange, from which no signal wakes it: it just ends.
        with leaving_at_once() if here.ranks() == 1 else contextlib.nullcontext():
            app()
    except (ConfigError, RankFailed) as error:
        words, code = launch.last_words(error)
        if words:
            print(f"swath: {words}", file=sys.stderr)
        sys.exit(code)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        print(f"swath: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(exits.MENDABLE)
    except Interrupted as left:
        if not here.rank():
            print(f"swath: {left}", file=sys.stderr)
        raise
    except ArithmeticError as error:
        from swath.train.step import Diverged

        if not isinstance(error, Diverged):
            raise
        print(f"swath: {error}", file=sys.stderr)
        sys.exit(exits.FAULT)
    except KeyboardInterrupt:
        print("swath: interrupted", file=sys.stderr)
        sys.exit(exits.INTERRUPTED)
