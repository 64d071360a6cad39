"""Embeddings of a store: what the layer gives, whoever computes it, as any Zarr tool reads it."""

import numpy as np
import pytest
import torch
import xarray

from swath.config import ConfigError
from swath.data.split import select
from swath.embed.samples import embed_samples
from swath.embed.settings import Embed
from swath.embed.table import Table
from swath.models.conv3d import Conv3d
from swath.models.unet import UNet
from swath.nn.features import features
from swath.parallel.world import World
from tests.embed.small import small_store, untrained


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("class"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("mask"), "mask", samples=12)


def whole(data):
    (batch,) = data.loader("all", micro=data.store.samples).sweep(
        indices=np.arange(data.store.samples)
    )
    return batch


def test_a_table_holds_what_the_layer_gives(store, tmp_path):
    """Beside each vector the part and class of its sample; xarray reads all of it by name."""
    model, data = untrained(store)
    table = embed_samples(model, data, Embed(), tmp_path)
    tokens = features(model, whole(data).image)["norm"]
    with xarray.open_zarr(table.path, consolidated=False) as found:
        assert found["embedding"].dims == ("sample", "feature")
        np.testing.assert_allclose(found["embedding"], tokens[:, 0], atol=2e-6)
        for number, part in enumerate(("train", "val", "test")):
            mine = select(data.store, None, part).indices
            assert np.flatnonzero(found["part"] == number).tolist() == mine.tolist()
        assert found["label"].values.tolist() == data.store.column("label").tolist()
        assert found["name"].values.tolist() == data.store.column("name").tolist()
        assert found["label"].attrs["classes"] == list(data.store.contents.label.classes)
    mean = embed_samples(model, data, Embed(pool="mean"), tmp_path)
    assert mean.path != table.path
    np.testing.assert_allclose(
        mean.vectors(np.arange(60)), tokens[:, 1:].mean(1), rtol=1e-5, atol=2e-6
    )
    chosen = np.array([40, 3, 59, 3])
    np.testing.assert_array_equal(table.vectors(chosen), table.vectors(np.arange(60))[chosen])


def test_patches_have_the_class_that_most_of_their_pixels_have(masks, tmp_path):
    """Counted here pixel by pixel; without being asked for, since each pixel has a label."""
    model, data = untrained(masks)
    table = embed_samples(model, data, Embed(), tmp_path)
    batch = whole(data)
    tokens = features(model, batch.image)["norm"]
    with xarray.open_zarr(table.path, consolidated=False) as found:
        assert found["embedding"].shape == (12, 2, 2, 16)
        np.testing.assert_allclose(
            found["embedding"], tokens.reshape(12, 2, 2, 16), rtol=1e-5, atol=2e-6
        )
        for sample, row, col in np.ndindex(12, 2, 2):
            cell = batch.target[sample, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8]
            counts = np.bincount(cell[cell != 255], minlength=3)
            label = int(found["label"][sample, row, col])
            assert counts[label] == counts.max() if counts.any() else label == -1
    one = embed_samples(model, data, Embed(pool="mean"), tmp_path)
    assert one.grid == [] and len(one.column("label")) == 12


def made(store, folder, windows=None, threads=1, stop=None):
    """Embed as one rank of the world that there is; stop: end after so many samples."""
    model, data = untrained(store)
    torch.set_num_threads(threads)

    def progress(done, total):
        if stop is not None and done >= stop:
            raise RuntimeError("killed")

    try:
        table = embed_samples(
            model,
            data,
            Embed(pool="patches"),
            folder,
            windows_at_once=windows,
            progress=progress,
            world=World.start("cpu"),
        )
    finally:
        torch.set_num_threads(1)
    return table.path


def content(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_embeddings_depend_on_no_ranks_threads_or_windows(store, tmp_path, ranks, monkeypatch):
    """Every file is the same to the byte; also if it was interrupted in between."""
    monkeypatch.setattr("swath.embed.table.ROWS_BYTES", 7 * 4 * 4 * 16)
    alone = content(made(store, tmp_path / "alone", windows=1))
    assert len([p for p in alone if p.parts[:2] == ("embedding", "c")]) == 9
    assert content(made(store, tmp_path / "many", windows=16, threads=3)) == alone
    with pytest.raises(RuntimeError, match="killed"):
        made(store, tmp_path / "cut", stop=20)
    with pytest.raises(ConfigError, match="no finished embeddings; swath embed makes them"):
        Table.open(next((tmp_path / "cut").glob("*.zarr")))
    before = len(list((tmp_path / "cut").glob("*.zarr/embedding/c/*")))
    assert before == 3
    assert content(made(store, tmp_path / "cut", windows=5)) == alone
    paths = ranks(3, made_in_small_files, store, tmp_path / "three")
    assert content(paths[0]) == alone


def made_in_small_files(store, folder):
    import swath.embed.table

    before, swath.embed.table.ROWS_BYTES = swath.embed.table.ROWS_BYTES, 7 * 4 * 4 * 16
    try:
        return made(store, folder)
    finally:
        swath.embed.table.ROWS_BYTES = before


def test_another_model_makes_another_table(store, tmp_path):
    """In the place of the old one, of which nothing is kept."""
    model, data = untrained(store)
    first = embed_samples(model, data, Embed(), tmp_path)
    before = first.vectors(np.arange(60))
    model.network.norm.weight.mul_(2)
    second = embed_samples(model, data, Embed(), tmp_path)
    assert second.path == first.path
    assert not np.allclose(second.vectors(np.arange(60)), before)


def test_what_a_model_cannot_give_is_told(store, masks, tmp_path):
    model, data = untrained(store)
    with pytest.raises(ConfigError, match=r"ViT has no layer 'block.1'; did you mean 'blocks.1'"):
        embed_samples(model, data, Embed(layer="block.1"), tmp_path)
    unet, data = untrained(masks, UNet(width=4, depth=1))
    with pytest.raises(ConfigError, match=r"'decoder' has no class token; set embed.pool=mean"):
        embed_samples(unet, data, Embed(pool="token"), tmp_path)
    unet.network.embeds = None
    with pytest.raises(ConfigError, match=r"does not say which layer .* such as encoder.stem.2"):
        embed_samples(unet, data, Embed(), tmp_path)
    cube, data = untrained(store, Conv3d(filters=(2,), kernel=(3, 3, 2), strides=(1,), hidden=(4,)))
    with pytest.raises(ConfigError, match=r"'hidden.0' has one vector for an image"):
        embed_samples(cube, data, Embed(pool="patches"), tmp_path)
    assert embed_samples(cube, data, Embed(), tmp_path).width == 4
