"""The recipe scripts as modules, for tests."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from medmap_monai.recipes.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("passion", "medmap", "dmafnet")


def load_recipe(name: str) -> Recipe:
    """The recipe that ``pipelines/reproduce_<name>.py`` declares."""
    spec = spec_from_file_location(f"reproduce_{name}", REPOSITORY / "pipelines" / f"reproduce_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, name.upper())
    assert isinstance(recipe, Recipe)
    return recipe
