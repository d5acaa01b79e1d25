"""``import medmap_monai as mm``: light until used, and every name that the stubs promise is there."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "medmap_monai"
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
LAZY = "from lazy_loader import attach_stub\n"
HEAVY = ("torch", "monai", "ignite", "numpy", "scipy", "pandas", "nibabel", "SimpleITK", "typer", "rich")


def _names(stub: Path) -> dict[str, str]:
    """Module (relative to the package) by exported name."""
    statements = ast.parse(stub.read_text(encoding="utf-8")).body
    imports = [node for node in statements if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 1 and node.module for node in imports)
    assert all(alias.asname == alias.name for node in imports for alias in node.names), f"{stub}: import X as X"
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def _package(stub: Path) -> str:
    return ".".join(stub.parent.relative_to(PACKAGE.parent).parts)


@pytest.mark.parametrize("stub", STUBS, ids=_package)
def test_every_name_is_the_one_of_its_module(stub: Path) -> None:
    package = importlib.import_module(_package(stub))
    names = _names(stub)
    assert sorted(package.__all__) == sorted(names)
    assert set(dir(package)) >= set(names)
    for name, module in names.items():
        assert getattr(package, name) is getattr(importlib.import_module(f"{package.__name__}.{module}"), name)
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018


@pytest.mark.parametrize("stub", STUBS, ids=_package)
def test_no_name_is_that_of_a_module(stub: Path) -> None:
    """Once such a module is imported, its package would hand out the module instead."""
    modules = {path.stem for path in stub.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(_names(stub))


def test_the_front_door_offers_what_the_readme_promises() -> None:
    names = _names(PACKAGE / "__init__.pyi")
    assert {"predict", "evaluate", "load_bundle", "find_studies", "RandModalityDropoutd", "LoadStudyd"} <= set(names)
    assert len(names) <= 30


def test_an_init_file_is_empty_or_lazy() -> None:
    """The rule of docs/architecture.md and CONTRIBUTING.md."""
    for path in PACKAGE.rglob("__init__.py"):
        text = path.read_text(encoding="utf-8")
        assert not text or (LAZY in text and path.with_suffix(".pyi").is_file()), path
        allowed = (ast.Expr, ast.ImportFrom, ast.Assign)
        assert all(isinstance(node, allowed) for node in ast.parse(text).body), path
    assert all(stub.with_suffix(".py").read_text(encoding="utf-8") for stub in STUBS)


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; before = set(sys.modules); import medmap_monai as mm; dir(mm); from medmap_monai import networks;"
        "dir(networks); new = {name.split('.')[0] for name in set(sys.modules) - before}; print(*sorted(new))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    new = set(done.stdout.split())
    assert new >= {"medmap_monai", "lazy_loader"}
    assert not new & set(HEAVY)
    third_party = {name for name in new if name not in sys.stdlib_module_names}
    assert third_party == {"medmap_monai", "lazy_loader"}
