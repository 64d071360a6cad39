"""Tasks that tell views of one sample from those of others: `contrast`, `dino`, `moco`."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "contrast moco", {"shard": 2}),
    (3, "dino", {"shard": 3, "reshard": False, "recompute": "full"}),
    (2, "contrast dino moco", {"tensor": 2}),
    (2, "contrast dino", {"tensor": 2, "sequence": True}),
    (4, "contrast moco", {"tensor": 2, "shard": 2, "recompute": "full"}),
    (4, "dino", {"tensor": 2, "shard": 2, "wrap": "matrix"}),
    (2, "contrast dino moco", {"context": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (3, "contrast dino moco", {}),
    (2, "contrast dino", {"tensor": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
