"""The check of a recipe as a module."""

import importlib.util
import pathlib
import types

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"


def check_of(recipe: str) -> types.ModuleType:
    """Return ``recipes/RECIPE/check.py``, imported but not run."""
    spec = importlib.util.spec_from_file_location(f"{recipe}_check", RECIPES / recipe / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
