"""Where a label map comes from, written into its own NIfTI header, so that a copy still tells."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib

GENERATOR = "medmap-monai"
_COMMENT = 6  # NIfTI-1 extension code for plain text


def add_provenance(image: nib.Nifti1Image, content: Mapping[str, Any]) -> None:
    """Put ``content`` (JSON values) into the header of ``image`` as a text extension."""
    text = json.dumps({"generator": GENERATOR, **content}, sort_keys=True)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, text.encode("utf-8")))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What :func:`add_provenance` wrote into a file; None where there is nothing of that kind, or no readable file."""
    try:
        header: Any = nib.load(Path(path)).header
        extensions = list(getattr(header, "extensions", ()))
    except Exception:  # a damaged file says nothing about its origin; whoever reads its voxels reports the damage
        return None
    for extension in extensions:
        try:
            found = json.loads(bytes(extension.get_content()).rstrip(b"\0").decode("utf-8"))
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("generator") == GENERATOR:
            return found
    return None
