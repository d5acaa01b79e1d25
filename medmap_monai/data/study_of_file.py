"""The study that one of its files, or its folder, belongs to: what programs know that hand over a single image."""

from __future__ import annotations

import os
from pathlib import Path

from medmap_monai.data.edition import Edition
from medmap_monai.data.studies import scan_studies
from medmap_monai.data.study import Study, StudyError


def study_of_file(path: str | os.PathLike[str], edition: str | Edition | None = None) -> Study:
    """Find the other sequences of the study that ``path`` is part of.

    Args:
        path: any image of the study, or its folder.
        edition: how files are named; detected when None.

    Raises:
        FileNotFoundError: there is no such path.
        StudyError: the folder holds several studies and ``path`` does not say which, or the file is none of theirs.
    """
    given = Path(os.path.abspath(path))
    if not given.exists():
        raise FileNotFoundError(f"{given} does not exist")
    folder = given if given.is_dir() else given.parent
    scan = scan_studies(folder, edition)
    if given.is_dir():
        if len(scan.studies) + len(scan.errors) != 1:
            raise StudyError(given.name, f"{folder} holds {len(scan.studies)} studies; name a file of the one to load")
        if scan.errors:
            raise scan.errors[0]
        return scan.studies[0]
    real = os.path.realpath(given)
    for study in scan.studies:
        if real in {os.path.realpath(source.path) for source in study.images.values()}:
            return study
    if scan.errors:
        raise scan.errors[0]
    raise StudyError(given.name, "is no sequence of a study that can be recognised by its name", given)
