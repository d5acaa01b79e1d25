"""Label maps that somebody corrected by hand: a run that does such a study again keeps them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmap_monai.transforms.nifti_provenance import read_provenance
from medmap_monai.utils.files import atomic_path, file_sha256
from medmap_monai.utils.output import label_map_path

#: folder below the output for label maps that a later run replaced although they had been changed
REPLACED = "replaced"


def keep_corrected(folder: str | os.PathLike[str], case_id: str, record: Mapping[str, Any] | None) -> Path | None:
    """Copy the label map of a case to ``replaced/`` unless it is as a run wrote it.

    Args:
        folder: output folder.
        case_id: the case.
        record: of the run that wrote the map, which holds its hash; without one a map counts as corrected if it does
            not say itself that a run wrote it, as most editors drop that from the header.

    Returns:
        the copy, named after its content; None where there is nothing to keep.
    """
    path = label_map_path(folder, case_id)
    if not path.is_file():
        return None
    digest = file_sha256(path)
    written = (record or {}).get("label_map_sha256")
    if digest == written or (written is None and read_provenance(path) is not None):
        return None
    copy = Path(folder) / REPLACED / f"{case_id}_seg_{digest[:12]}.nii.gz"
    if not copy.is_file():
        copy.parent.mkdir(exist_ok=True)
        with atomic_path(copy) as temporary:
            shutil.copy2(path, temporary)
    return copy
