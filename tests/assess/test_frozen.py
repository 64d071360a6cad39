"""Features as they are, scored with few labels where a split divides the pixels of a patch."""

import pathlib

import numpy as np
import pytest

from swath import run as runs
from swath.assess import frozen
from swath.data.few import Few, fewer
from swath.data.split import TRAIN, select
from swath.parallel.world import World

WORDS = (
    "build.dataset={kind: synthetic, samples: 36, size: 16, label: mask}",
    "build.split={by: patch, test: 0.3, val: 0.1}",
    "model={kind: vit, width: 8, depth: 1, heads: 1, patch: 4}",
    "task={kind: segment}",
    "data.store=store",
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run, the features of its store, and what was learned from and asked, by share."""
    asked = {}

    def hears(method, x, y, vectors, *more):
        asked[few.share] = x, y, vectors
        return answer(method, x, y, vectors, *more)

    answer = frozen.answer
    with pytest.MonkeyPatch.context() as patch, World.start("cpu") as world:
        patch.chdir(tmp_path_factory.mktemp("frozen"))
        patch.setattr(frozen, "answer", hears)
        run = runs.load(*WORDS)
        runs.build(run, progress=False)
        frozen.begun(run, pathlib.Path("begun"), world)
        table = frozen.features(run, pathlib.Path("begun"), world)
        for few in [Few(share=share) for share in (1, 0.3, 0.1, 0.01)]:
            frozen.score_frozen(run, table, "knn", few)
        yield run, table, asked


def test_what_is_scored_on_is_the_same_for_every_share(scored):
    """A patch of two polygons stays in its part, whichever of them was drawn to learn from."""
    _, table, asked = scored
    test = (table.column("part") == 2) & (table.column("label") >= 0)
    for _, _, vectors in asked.values():
        np.testing.assert_array_equal(vectors, table.vectors(np.flatnonzero(test)))


def test_what_is_learned_from_are_the_drawn_labels_alone(scored):
    """Counted, patch by patch, from what the drawn training part leaves of the labels."""
    run, table, asked = scored
    store = run.data.open().store
    part = table.column("part").reshape(-1, 4, 4)
    for share, (_, classes, _) in asked.items():
        chosen = fewer(select(store, run.data.split, "train"), Few(share=share))
        read = store.read(np.arange(36), [], groups=(chosen.grouping,)).result()
        left = chosen.restrict(read["label"], read[f"groups/{chosen.grouping}"])
        expected = []
        for place in zip(*np.nonzero(part == TRAIN), strict=True):
            n, y, x = (int(i) for i in place)
            pixels = left[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            if (pixels != 255).any():
                expected.append(np.bincount(pixels[pixels != 255]).argmax())
        np.testing.assert_array_equal(classes, expected)
    counts = [len(classes) for _, classes, _ in asked.values()]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1] > 0
