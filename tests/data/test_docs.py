"""The pages about data say what the code does: their snippets run, and no edition is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medmap_monai.data.editions import EDITIONS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "reference" / "data.md", DOCS / "how-to" / "splits.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), {})


def test_every_edition_is_documented() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert [name for name in EDITIONS if f"`{name}`" not in text] == []
