"""The story of the documentation prints what it says it prints."""

import contextlib
import io
import pathlib
import re

import torch

ROOT = pathlib.Path(__file__).parents[1]


def test_one_batch_from_disk_to_gradient(tmp_path, monkeypatch):
    """Code in a text grows old unless it is run; the second half needs the demo's model."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/story.md").read_text().split("## One pixel")[0]
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 7
    known: dict = {}
    with torch.random.fork_rng():
        for code, printed in blocks:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code, known)
            assert out.getvalue() == printed, code
