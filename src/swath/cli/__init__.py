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
import sys
from typing import Annotated

import typer

from swath import exits, here, log
from swath.cli import compare, features, model, show, store
from swath.config import ConfigError
from swath.parallel import launch
from swath.parallel.end import RankFailed
from swath.train.interrupt import Interrupted, leaving_at_once
from swath.version import VERSION

app = typer.Typer(
    name="swath",
    help="Deep learning for Earth observation: from a scene to a map, or from many scenes to a "
    "model that has learned without labels.\n\n"
    "A verb takes YAML files, then key=value words that win over them; or a run folder. "
    "key=value sets one field; key={...} replaces all of key, whatever the files say there.\n\n"
    "The whole way: swath train mine.yaml, which builds the store data.store and writes to a run "
    "folder, runs/NAME; then, with that folder or with mine.yaml, swath predict, evaluate, "
    "baseline and report.\n\n"
    "Without labels: swath train pretrain.yaml; swath assess compare.yaml says what that is worth; "
    "swath train mine.yaml init.from=runs/NAME goes on from there.",
    epilog="What a verb takes and makes, with an example: swath VERB --help. What can be set: "
    "swath show --docs. What there is to choose from: swath show --kinds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(
    help="Stores: build one from files, look at it, print its statistics.\n\n"
    "A store is a folder with all samples of a dataset, cut to chips; what is trained on. "
    "swath train builds it as well.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for verb, about in (
    (model.train, "Train a model, or go on training it."),
    (model.export, "Write the model of an unfinished run, or for other programs."),
    (model.evaluate, "Score the model, and its map, on the held-out part."),
    (model.predict, "Map a scene."),
    (features.embed, "Write the model's features of samples, or of a scene."),
    (features.similar, "Find places like a given one."),
    (features.anomalies, "Find places unlike all others."),
    (features.probe, "Score the model's features as they are."),
    (compare.assess, "Compare pretrained models: tasks, few labels, seeds."),
    (compare.baseline, "Score what the model must beat."),
    (compare.report, "Write one page about the run."),
    (show.show, "Print the settings, and where each was written."),
    (show.schema, "Print the JSON schema of the settings."),
):
    app.command(short_help=about)(verb)
for verb, about in (
    (store.build, "Build the store, or go on building it."),
    (store.find, "List what a STAC catalogue has."),
    (store.fetch, "Fetch what a STAC catalogue has."),
    (store.show, "Draw chips and the split, as PNG."),
    (store.stats, "Print samples, classes and bands."),
):
    data.command(short_help=about)(verb)
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
