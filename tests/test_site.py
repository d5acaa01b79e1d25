"""The documentation as a site: every public name has its entry, and no page is a book."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PACKAGE = REPOSITORY / "medmap_monai"
MOST_WORDS = 2500


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_a_page_is_no_book(page: Path) -> None:
    words = len(page.read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS, f"{words} words: split the page, or say it shorter"


def test_every_public_name_is_in_the_reference() -> None:
    hooks = runpy.run_path(str(DOCS / "site_hooks.py"))
    pages = (DOCS / "reference" / "api").glob("*.md")
    shown = [name for page in pages for name in re.findall(r"^::: (\S+)$", _on_site(hooks, page), re.MULTILINE)]
    offered = {f"medmap_monai.{place}" for stub in PACKAGE.rglob("__init__.pyi") for place in _imported(stub)}
    assert set(shown) == offered
    assert len(shown) == len(offered)


def _on_site(hooks: dict[str, Any], page: Path) -> str:
    return str(hooks["on_page_markdown"](page.read_text(encoding="utf-8")))


def _imported(stub: Path) -> list[str]:
    room = "".join(f"{part}." for part in stub.parent.relative_to(PACKAGE).parts)
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return [f"{room}{node.module}.{alias.name}" for node in imports for alias in node.names]
