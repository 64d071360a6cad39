"""Verbs on a model's features."""

from typing import Annotated

import typer

from swath import here
from swath.cli.words import Ranks, Settings, chosen_by, in_ranks
from swath.config import ConfigError


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

    Examples: swath embed runs/NAME stores/other

    swath embed runs/NAME --scene predict.scene.path=data/other
    """
    from swath import run

    chosen = chosen_by("embed --scene" if scene else "embed", settings)
    if ranks != 1:
        in_ranks("embed", [*(settings or []), *["--scene"] * scene], ranks, chosen)
    if scene:
        path = run.embed_scene(chosen)
        if not here.rank():
            print(path)
        return
    made = run.embed(chosen)
    if not here.rank():
        each = " x ".join(map(str, (made.samples, *made.grid)))
        print(f"{made.path}: {each} vectors of {made.width}")


def similar(
    settings: Settings = None,
    sample: Annotated[str, typer.Option(help="name or number of a sample of the store")] = "",
    at: Annotated[str, typer.Option(help="a place: longitude,latitude in degrees")] = "",
    count: Annotated[int, typer.Option(help="places to find")] = 8,
    away: Annotated[
        float,
        typer.Option(help="km from the query at least: other fields, scenes, no date of its place"),
    ] = 0.0,
) -> None:
    """Find the places of the store that are most like a sample, or like what lies at a place.

    Prints a table, and leaves it in the run folder's embed/ as csv, as GeoJSON for QGIS, and as a
    picture of the chips. None of them overlaps the query or a better one; with --away 5 none lies
    within 5 km of the query.

    Examples: swath similar runs/NAME --sample 0

    swath similar runs/NAME --at 12.60,52.49 --count 20 --away 5
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
    every, files = run.similar(chosen_by("similar", settings), at or sample, count, away_km=away)
    print(text(every, SCORE), *files, sep="\n")


def anomalies(
    settings: Settings = None,
    count: Annotated[int, typer.Option(help="places to tell")] = 8,
) -> None:
    """Score how unlike the training part's places each place of the store is, by its features.

    Prints the strangest, none of which overlaps another, and leaves them in the run folder's embed/
    as csv, as GeoJSON for QGIS, and as a picture of the chips. The scores of all stand with the
    embeddings, as the array anomaly.

    Example: swath anomalies runs/NAME --count 20
    """
    from swath import run
    from swath.embed.anomaly import SCORE
    from swath.embed.found import text

    every, files = run.anomalies(chosen_by("anomalies", settings), count)
    print(text(every, SCORE), *files, sep="\n")


def probe(settings: Settings = None) -> None:
    """Score the trained model's features without training it further.

    k nearest neighbours and a linear layer learn from 1, 10 and 100 % of the training part's
    labels (probe.shares) and are scored on the test part. So the store needs labels; of a model
    that was pretrained without, name one that has them. Table (csv, md) and picture stand in the
    run folder's embed/.

    Example: swath probe runs/pretrained stores/mine
    """
    from swath import run

    print(run.probe(chosen_by("probe", settings)))
