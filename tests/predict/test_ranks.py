"""A map that several ranks make is, bit for bit, that of one; and outlives any of them."""

import os
import signal

import numpy as np
import pytest
import rasterio

from swath.config import ConfigError
from swath.data.chip import Label
from swath.geo.cog import CogWriter
from swath.models.vit import ViT
from swath.parallel.world import World
from swath.predict.map import predict
from swath.predict.settings import Predict
from swath.tasks.regress import Regress
from tests.predict.small import untrained, write_scene

ALL = Predict(probabilities=True, uncertainty=True, overlap=0.5)
STRIPS = 9  # of the scene of 130 rows, by windows of 32 every 16
HEIGHTS = Label(kind="raster", classes=("height",), unit="m")


def mapped(imagery, folder, settings=ALL, model=(), end=None):
    """Map as one rank of the world that there is; return the files and what progress was told.

    end: (rank, strips, how): this rank ends after so many strips of its own; "kill" or "raise".
    """
    world, told = World.start("cpu"), []

    def progress(done, strips):
        told.append((done, strips))
        if end and end[0] == world.rank and done - told[0][0] == end[1]:
            if end[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("out of memory")

    with imagery.open() as scene:
        files = predict(untrained(*model), scene, settings, folder, world=world, progress=progress)
    return files, told


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


def same(files, expected):
    assert files.keys() == expected.keys()
    for name, path in files.items():
        np.testing.assert_array_equal(read(path), read(expected[name]))
        assert path.read_bytes() == expected[name].read_bytes()


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene"), height=130)


@pytest.fixture(scope="module")
def alone(imagery, tmp_path_factory, ranks):
    """The map that one process makes."""
    return ranks(1, mapped, imagery, tmp_path_factory.mktemp("alone"))[0][0]


@pytest.mark.parametrize(
    ("number", "shares"), [(2, [5, 4]), (3, [4, 3, 2]), (10, [1] * STRIPS + [0])]
)
def test_the_map_does_not_depend_on_the_ranks(imagery, alone, tmp_path, ranks, number, shares):
    """Ten are more than there are strips. Beside its own, a rank computes a row of windows that
    reaches into them; so the first has one more."""
    found = ranks(number, mapped, imagery, tmp_path)
    same(found[0][0], alone)
    assert [len(told) - 1 for _, told in found] == shares and sum(shares) == STRIPS
    assert [told[-1] for _, told in found] == [(share, share) for share in shares]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["scene.tif", "scene.tif.aux.xml", "scene_probabilities.tif", "scene_uncertainty.tif"]
    )


@pytest.mark.parametrize("overlap", [0.0, 0.75])
def test_values_and_other_overlaps_too(imagery, tmp_path, ranks, overlap):
    """Values are summed as they are, in floating point: their order must stay."""
    settings, model = Predict(overlap=overlap), (HEIGHTS, None, Regress(offset=300.0, scale=50.0))
    one, three = (
        ranks(n, mapped, imagery, tmp_path / str(n), settings, model)[0][0] for n in (1, 3)
    )
    same(three, one)


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [(3, 2, "kill"), (2, 3, "raise"), (2, 1, "kill"), (1, 3, "raise")],
)
def test_a_map_goes_on_after_a_rank_ended(imagery, alone, tmp_path, ranks, before, after, how):
    """Whichever rank it was, and with however many ranks the map goes on."""
    with pytest.raises(AssertionError, match="out of memory" if how == "raise" else "died"):
        ranks(before, mapped, imagery, tmp_path, ALL, (), (before - 1, 1, how))
    assert not (tmp_path / "scene.tif").exists()
    found = ranks(after, mapped, imagery, tmp_path)
    same(found[0][0], alone)
    there = {told[0][0] for _, told in found}
    assert len(there) == 1 and 1 <= there.pop() < STRIPS
    assert len(list(tmp_path.iterdir())) == 4


def ended(imagery, folder):
    """Return what a rank is told when rank 1 ends."""
    try:
        mapped(imagery, folder, end=(1, 1, "raise"))
    except RuntimeError as error:
        return str(error)
    return ""


def test_the_others_say_that_a_rank_ended(imagery, tmp_path, ranks):
    first, second = ranks(2, ended, imagery, tmp_path)
    assert second == "out of memory"
    assert "another rank ended before its part of the map was done" in first
    assert "what is done is kept" in first


def damaged_in_between(imagery, folder):
    """Let rank 1 write into a file of its own, as on a folder that ranks do not share."""
    world = World.start("cpu")
    if world.rank:
        write = CogWriter.write

        def elsewhere(self, window, pixels):
            write(self, window, pixels ^ 1 if pixels.dtype == np.uint8 else pixels)

        CogWriter.write = elsewhere
    try:
        mapped(imagery, folder)
    except (ConfigError, RuntimeError) as error:
        return str(error)
    finally:
        if world.rank:
            CogWriter.write = write
    return ""


def test_strips_that_are_not_there_are_noticed(imagery, alone, tmp_path, ranks):
    """Else the map would silently have holes."""
    first, second = ranks(2, damaged_in_between, imagery, tmp_path)
    assert "4 of the map's 9 strips are not as they were written, the first is 5" in first
    assert "one folder that all see" in first and "rank 0 failed" in second
    assert not (tmp_path / "scene.tif").exists()
    found = ranks(2, mapped, imagery, tmp_path)
    same(found[0][0], alone)
    assert found[0][1][0] == (5, 7)  # strips that were there, and with those of this rank


def test_a_folder_that_a_rank_does_not_see_is_said(tmp_path):
    options = dict(count=1, height=9, width=9, dtype="uint8", transform=None, crs=None)
    with pytest.raises(ConfigError, match="begun is not there; those that make a map together"):
        CogWriter(tmp_path / "a.tif", join=True, **options)
    assert not list(tmp_path.iterdir())


def unlike(imagery, folder):
    rank = World.start("cpu").rank
    with pytest.raises(ConfigError) as error:
        mapped(imagery, folder, Predict(overlap=0.25 * (1 + rank)))
    return str(error.value)


def test_ranks_that_would_make_different_maps_are_refused(imagery, tmp_path, ranks):
    for message in ranks(2, unlike, imagery, tmp_path):
        assert "they differ in overlap. Give all" in message


def test_whole_windows_are_shared_too(imagery, tmp_path, ranks):
    """A model of tokens, several windows at once."""
    settings = Predict(overlap=0.5, windows_at_once=4)
    model = (HEIGHTS, ViT(width=16, depth=1, heads=2, patch=8), Regress())
    one, two = (ranks(n, mapped, imagery, tmp_path / str(n), settings, model)[0][0] for n in (1, 2))
    same(two, one)
