"""The Indian Pines recipe: its files load, its store is what it says, and its claim in small."""

import dataclasses

import numpy as np
import pytest

from swath import run
from swath.baselines import fit_and_score
from swath.baselines.svm import SVM
from swath.data.split import select
from swath.models import Inputs, Outputs
from tests.recipes.claims import RECIPES, check_of

FOLDER = RECIPES / "indian_pines"


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """The recipe, with its store in a folder of the test; tests may be started anywhere."""
    store = tmp_path_factory.mktemp("store") / "indian_pines"
    data = FOLDER / "data"
    return run.load(
        FOLDER / "recipe.yaml",
        f"data.store={store}",
        f"build.dataset.image={data / 'Indian_pines_corrected.npy'}",
        f"build.dataset.labels={data / 'Indian_pines_gt.npy'}",
    )


@pytest.fixture(scope="module")
def store(chosen):
    return run.build(chosen, progress=False)


def parameters(settings, bands):
    import torch

    with torch.device("meta"):
        model = settings.model.build(Inputs(bands=bands, size=9), Outputs(channels=8, dense=False))
    return sum(p.numel() for p in model.parameters())


def test_the_store_holds_what_the_fact_sheet_says(store):
    """8,756 windows of 50 bands, of the 8 classes with at least three regions."""
    (cube,) = store.contents.modalities
    assert (store.samples, len(cube.sensor.bands), cube.height) == (8756, 50, 9)
    assert len(store.contents.label.classes) == 8 and "oats" not in store.contents.label.classes
    assert store.contents.centred


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_regions_are_on_one_side_only(chosen, store, seed):
    """And every class is on both; the training shares are those of the fact sheet."""
    split = dataclasses.replace(chosen.build.split, seed=seed)
    train, test = (select(store, split, part) for part in ("train", "test"))
    region = store.column("groups/region")
    assert not set(region[train.indices]) & set(region[test.indices])
    assert (train.counts > 0).all() and (test.counts > 0).all()
    assert 0.37 < train.size / store.samples < 0.42


def test_an_svm_loses_forty_points_when_regions_are_held_out(chosen, store):
    """The claim, for the method that takes seconds: .88 on random pixels, .47 on regions."""
    found = {
        by: fit_and_score(SVM(), store, dataclasses.replace(chosen.build.split, by=by))
        for by in ("random", "region")
    }
    assert found["random"]["oa"] == pytest.approx(0.876, abs=0.02)
    assert found["region"]["oa"] == pytest.approx(0.468, abs=0.04)
    assert found["random"]["share_touching"] > 0.99
    assert found["region"]["share_touching"] == pytest.approx(0.14, abs=0.01)


def test_the_thin_and_the_full_network(chosen, store):
    """52 thousand parameters, and 7 million: the fact sheet's numbers."""
    full = run.load(FOLDER / "recipe.yaml", FOLDER / "full.yaml")
    assert parameters(chosen, store.contents.modalities[0].sensor.bands) == 51_760
    from swath.data.sensor import load_sensor

    assert parameters(full, load_sensor("aviris_indian_pines").bands) == 7_065_576
    assert full.build.dataset.every == 1 and full.task.loss == "squared"
    epochs = full.train.samples / select(store, None, "train").size
    assert epochs == pytest.approx(600)
    # Keras' decay of 5e-6 an update, after the first epoch of updates of 50 samples.
    updates = 3366 // 50
    factor = full.schedule.factor(updates * 50, full.train.samples)
    assert factor == pytest.approx(1 / (1 + 5e-6 * updates))


def test_the_check_says_whether_the_claim_holds():
    """On made-up figures: a gap of 40 points holds, one of 10 does not."""
    check = check_of("indian_pines")

    def seeds(random, region):
        def methods(oa):
            row = {"oa": oa, "balanced": 0.7, "kappa": 0.3, "share_touching": 0.5}
            return {"conv3d": row, "svm": {**row, "oa": 0.9 if oa == random else 0.3}}

        return [
            {"random": methods(random), "region": methods(region)},
            {"random": methods(random), "region": methods(region + 0.02)},
        ]

    holds, said = check.claim(seeds(0.8, 0.4))
    assert holds and "conv3d: 0.800 - 0.410 = 39 points" in said
    assert "Mean ± standard deviation of 2 seeds." in said
    holds, said = check.claim(seeds(0.5, 0.4))
    assert not holds and "conv3d: 0.500 - 0.410 = 9 points" in said
    spread = np.std([0.4, 0.42], ddof=1)
    row = f"| disjoint regions | conv3d | 0.410 ± {spread:.3f} | 0.700 ± 0.000 | 0.300 ± 0.000 |"
    assert f"{row} 50 % |" in said
