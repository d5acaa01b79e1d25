"""One study on disk: which modalities exist and where, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmap_monai.data.edition import Edition


class StudyError(ValueError):
    """A study that cannot be used: names the case, the file where there is one, what was got and what is allowed.

    Args:
        case_id: the case.
        message: what was got and what is allowed.
        path: the file concerned, when it is one file.
    """

    def __init__(self, case_id: str, message: str, path: Path | None = None) -> None:
        where = f"case {case_id}" if path is None else f"case {case_id}: {path}"
        super().__init__(f"{where}: {message}")
        self.case_id = case_id
        self.path = path
        self.message = message

    def __reduce__(self) -> tuple[type[StudyError], tuple[str, str, Path | None]]:
        return (StudyError, (self.case_id, self.message, self.path))  # survives data-loader workers


@dataclass(frozen=True)
class ImageSource:
    """A modality's image: a file, or one channel of a 4-D file (``channel``, along the last axis)."""

    path: Path
    channel: int | None = None


@dataclass(frozen=True)
class Study:
    """One study.

    case_id: name of the case; outputs are named after it.
    images: the modalities that exist, by name (never by position).
    label: the label file, when there is one.
    edition: name of the data-set edition (layout and label values), or the ``Edition`` itself where it is not one of
        the built-in table; ``medmap_monai.data.editions.get_edition`` takes both.
    extra: further columns of the manifest, as text.
    """

    case_id: str
    images: Mapping[str, ImageSource]
    label: Path | None = None
    edition: str | Edition = "brats2020"
    extra: Mapping[str, str] = field(default_factory=dict)
