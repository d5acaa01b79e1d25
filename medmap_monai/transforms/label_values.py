"""Label values as they stand on disk, and the class indices that networks learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medmap_monai.data.edition import Edition
from medmap_monai.data.study import StudyError

_UNMAPPED = 255


def map_label_values(values: np.ndarray, edition: Edition, case_id: str, path: Path) -> np.ndarray:
    """Label values as on disk -> class indices, uint8; a value that the edition does not know is a StudyError."""
    integers = values
    if values.dtype.kind not in "iub":
        integers = np.rint(values).astype(np.int64)
        if not np.array_equal(integers, values):
            odd = values[integers != values].flat[0]
            raise StudyError(case_id, f"label value {odd} is not an integer", path)
    known = {0: 0, **edition.labels}
    table = np.full(max(known) + 1, _UNMAPPED, dtype=np.uint8)
    table[list(known)] = list(known.values())
    outside = (integers < 0) | (integers > max(known))
    classes = table[np.where(outside, 0, integers).astype(np.intp)]
    wrong = outside | (classes == _UNMAPPED)
    if wrong.any():
        found = np.unique(integers[wrong])[:10].tolist()
        raise StudyError(
            case_id,
            f"unexpected label value {', '.join(map(str, found))}; edition {edition} allows {sorted(known)}",
            path,
        )
    return np.ascontiguousarray(classes)
