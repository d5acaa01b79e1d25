"""What MkDocs does beyond its defaults: the API pages list the public names, which stand in the package's stubs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
_NAMES = re.compile(r"^<!-- names: ([\w.]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``<!-- names: medmap_monai.networks -->`` becomes an entry for every name of that package."""
    return _NAMES.sub(lambda match: "\n".join(f"::: {name}" for name in public_names(match[1])), markdown)


def public_names(package: str) -> list[str]:
    """The full names that a package hands out; of the top one those that no other package hands out."""
    names = _of_stub(package)
    if "." in package:
        return names
    top = REPOSITORY / package
    rooms = (".".join((package, *stub.parent.relative_to(top).parts)) for stub in top.glob("*/**/__init__.pyi"))
    elsewhere = {name for room in rooms for name in _of_stub(room)}
    return [name for name in names if name not in elsewhere]


def _of_stub(package: str) -> list[str]:
    stub = REPOSITORY.joinpath(*package.split("."), "__init__.pyi")
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return [f"{package}.{node.module}.{alias.name}" for node in imports for alias in node.names]
