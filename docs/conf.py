"""How Sphinx makes the documentation: MyST Markdown, and the reference from docstrings."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import docstrings
import reference_pages

project = "Swath"
author = "the Swath contributors"
copyright = "the Swath contributors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Swath"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Field docstrings stand under the fields, in the order of the settings file.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "undoc-members": False}
autodoc_inherit_docstrings = False  # torch's are written for torch's own pages
# A field may be called as a type is (``bytes``); then a type in a signature is no link.
suppress_warnings = ["ref.python"]
# jaxtyping's shapes are strings, shown as they are written.
autodoc_preserve_defaults = True

reference_pages.write(pathlib.Path(__file__).parent)


def setup(app):
    app.connect("autodoc-process-docstring", docstrings.process)
