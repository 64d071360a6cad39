"""Many channels, in groups, which tensor ranks share."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "vit-channels", {"shard": 2, "wrap": "matrix", "recompute": "full"}),
    (2, "vit-channels mae-channels", {"tensor": 2}),
    (4, "vit-channels", {"tensor": 4, "recompute": "full"}),
    (4, "vit-channels mae-channels", {"tensor": 2, "shard": 2, "sequence": True}),
    (4, "vit-channels", {"tensor": 2, "replicate": 2}),
    (4, "vit-channels", {"tensor": 2, "context": 2}),
    (4, "vit-channels", {"tensor": 2, "pipeline": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "vit-channels mae-channels", {"tensor": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
