"""What preparation wrote beside the images of a study, for whoever reads them later."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from medmap_monai.utils.json_file import read_json

PREPARED_FILE = "prepared.json"
#: begins every remark that comes from preparation
TOLD_BY_PREPARATION = "prepared with a warning: "


def preparation_warnings(images: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Warnings of ``prepared.json`` beside these images: doubtful registrations, sequences left out.

    A record that cannot be read is itself a warning: nothing is known then of how these images came to lie together.

    Args:
        images: files of one study.
    """
    told: list[str] = []
    for folder in dict.fromkeys(Path(image).parent for image in images):
        record = folder / PREPARED_FILE
        if not record.is_file():
            continue
        try:
            found = read_json(record).get("warnings", [])
            told += [f"{TOLD_BY_PREPARATION}{text}" for text in found]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            told.append(f"{TOLD_BY_PREPARATION}{record} cannot be read ({type(error).__name__}); prepare it again")
    return told
