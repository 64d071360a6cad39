"""Run the code of a page and put under each piece what it printed.

    .venv/bin/python docs/tell.py        (after `make demo`, at the top of the repository)

rewrites docs/story.md with the output of today.
"""

import contextlib
import io
import pathlib
import re

STORY = pathlib.Path(__file__).with_name("story.md")


def told(text: str) -> str:
    """Return Markdown ``text`` with what each of its ``python`` blocks prints in the ``text``
    block under it; the blocks share their names, in order."""
    known: dict = {}

    def run(block: re.Match) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(block[1], known)
        return f"```python\n{block[1]}```\n\n```text\n{out.getvalue()}```\n"

    return re.sub(r"```python\n(.*?)```\n\n```text\n.*?```\n", run, text, flags=re.DOTALL)


if __name__ == "__main__":
    STORY.write_text(told(STORY.read_text()))
