"""The house stays small: the numbers of docs/architecture.md, measured, and their goals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.test_knobs import constructors, functions

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "medmap_monai"
SOURCES = sorted(path for path in (REPOSITORY / "bundles").glob("*.json"))
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SWITCHES = re.compile(r"# noqa|is_scripting\(\)|is_tracing\(\)|jit\.(?:unused|ignore|export)\b")


def _lines(paths: Iterable[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def bundle_lines() -> int:
    """JSON that somebody writes: a source per bundle, and the parts that they share."""
    return _lines([*SOURCES, *(PACKAGE / "zoo" / "parts").rglob("*.json")])


def longest_source() -> int:
    return max(_lines([path]) for path in SOURCES)


def longest_task() -> int:
    """The editions that the page on new tasks writes out."""
    page = (REPOSITORY / "docs" / "how-to" / "add-a-task.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2, "CT/PET and five sequences"
    return max(len(block.splitlines()) for block in blocks)


def names_to_learn() -> int:
    """Names of the front door in the README's Python: to segment a study, and to train with dropout and PASSION."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    names = {name for block in blocks for name in re.findall(r"\bmm\.(\w+)", block)}
    assert {"predict", "RandModalityDropoutd", "Passion"} <= names
    return len(names)


def switches() -> int:
    """Comments that silence the linter, and code that only TorchScript or tracing needs."""
    return sum(len(SWITCHES.findall(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py"))


def most_parameters() -> int:
    return max(count for _, name, count in [*constructors(), *functions()] if name not in ("Edition", "Choices"))


def readme_words() -> int:
    return len(README.split())


MEASURES: dict[str, tuple[Callable[[], int], int]] = {
    "lines of JSON written by hand for all bundles": (bundle_lines, 1500),
    "lines of a new bundle": (longest_source, 30),
    "lines of a new task": (longest_task, 25),
    "public names to learn for predict and train": (names_to_learn, 7),
    "`noqa` and scripting switches in the package": (switches, 30),
    "parameters of the largest constructor": (most_parameters, 12),
    "words of the README": (readme_words, 700),
}


@pytest.mark.parametrize("what", MEASURES)
def test_a_number_keeps_its_goal(what: str) -> None:
    measure, goal = MEASURES[what]
    assert 0 < measure() <= goal


def test_the_page_names_them() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| ([\d,-]+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    told = {what: (int(now.replace(",", "")), int(goal.replace(",", ""))) for what, _, now, goal in rows}
    assert {what: goal for what, (_, goal) in MEASURES.items()} == {what: goal for what, (_, goal) in told.items()}
    assert all(now <= goal for now, goal in told.values())


def test_modules_are_short() -> None:
    """One idea per file, about 300 lines."""
    assert {str(path) for path in PACKAGE.rglob("*.py") if _lines([path]) > 310} == set()
