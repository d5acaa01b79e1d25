"""Docstrings as they read best in source, turned into Markdown for the API pages (an extension of griffe)."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`")
_FIELD = re.compile(r"[a-z]\w*(, [a-z]\w*)*: ")


class ReadableDocstrings(griffe.Extension):
    """``:class:`~a.b.C` `` becomes ``C``; lines such as ``image: (B, M, ...)`` that describe fields become a list."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        text = _ROLE.sub(r"`\1`", obj.docstring.value)
        paragraphs = [_listed(part) if _FIELD.match(part) else part for part in text.split("\n\n")]
        obj.docstring.value = "\n\n".join(paragraphs)


def _listed(paragraph: str) -> str:
    return "\n".join(f"- {line}" if _FIELD.match(line) else line for line in paragraph.split("\n"))
