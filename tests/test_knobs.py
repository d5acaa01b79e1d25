"""Nothing that a configuration or a user builds has more parameters than one can keep in mind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import medmap_monai

PACKAGE = Path(medmap_monai.__file__).parent
MOST = 12
#: records whose fields are not knobs: one per key of an edition's JSON file, one per option of a recipe's command
RECORDS = {"Edition", "Choices"}


def _arguments(function: ast.FunctionDef) -> int:
    given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return len([argument for argument in given if argument.arg not in ("self", "cls")])


def _fields(node: ast.ClassDef) -> int:
    fields = [entry for entry in node.body if isinstance(entry, ast.AnnAssign)]
    return len([entry for entry in fields if "ClassVar" not in ast.unparse(entry.annotation)])


def _parameters(node: ast.ClassDef) -> int:
    """Parameters of the constructor that the class itself defines or, as a dataclass, is given."""
    for entry in node.body:
        if isinstance(entry, ast.FunctionDef) and entry.name == "__init__":
            return _arguments(entry)
    return _fields(node) if any("dataclass" in ast.unparse(mark) for mark in node.decorator_list) else 0


def constructors() -> Iterator[tuple[str, str, int]]:
    """(module, class, number of parameters) of every class of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield module, node.name, _parameters(node)


def functions() -> Iterator[tuple[str, str, int]]:
    """(module, function, number of parameters) of every function; a command's options are what its --help groups."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name != "cli":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    yield str(path.relative_to(PACKAGE)), node.name, _arguments(node)


def test_constructors_are_small() -> None:
    found = list(constructors())
    assert {"SubsetEvaluator", "Passion", "DMAF", "ModalityTrainer", "Scoring"} <= {name for _, name, _ in found}
    too_many = [(module, name, n) for module, name, n in found if n > MOST and name not in RECORDS]
    assert not too_many, f"more than {MOST} parameters; group what belongs together: {too_many}"


def test_functions_are_small() -> None:
    found = list(functions())
    assert {"run_evaluation", "train_transforms", "predict"} <= {name for _, name, _ in found}
    too_many = [entry for entry in found if entry[2] > MOST]
    assert not too_many, f"more than {MOST} parameters; group what belongs together: {too_many}"
