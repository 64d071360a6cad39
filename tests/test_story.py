"""The story of the documentation prints what it says it prints."""

import pathlib
import runpy

import torch

ROOT = pathlib.Path(__file__).parents[1]


def test_one_batch_from_disk_to_gradient(tmp_path, monkeypatch):
    """Code in a text grows old unless it is run; the second half needs the demo's model."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    told = runpy.run_path(str(ROOT / "docs/tell.py"))["told"]
    half = (ROOT / "docs/story.md").read_text().split("## One pixel")[0]
    assert half.count("```python") >= 7
    with torch.random.fork_rng():
        assert told(half) == half
