"""Items for endless training on synthetic studies: label maps, as often as an epoch wants them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from medmap_monai.synthesis.anatomy import label_map_files

#: stands for the anatomy that comes with the package (extra ``synthesis``)
BUILT_IN_ANATOMY = "mni152"
FOLDS = ("train", "val")


def synthetic_records(
    source: str | os.PathLike[str],
    fold: str,
    studies: int,
    held_out: int = 5,
    must_exist: bool = True,
) -> list[dict[str, Any]]:
    """Items ``{"case_id", "anatomy"}`` for :class:`~medmap_monai.transforms.synthesize_study.SynthesizeStudyd`.

    With :class:`~medmap_monai.data.seeded_dataset.SeededCacheDataset` study i of epoch e is a pure function of
    (seed, e, i), so that an epoch of ``studies`` items never repeats and a resumed run equals an uninterrupted one.

    Args:
        source: folder of brain label maps, or ``mni152``.
        fold: ``train``: all maps but the last ``held_out``. ``val``: those. A single map serves both.
        studies: items of an epoch; maps take turns.
        held_out: label maps, last by name, that training never sees.
        must_exist: False gives an empty list and a warning where ``source`` does not exist.

    Raises:
        FileNotFoundError: ``source`` holds no label map.
        ValueError: an unknown fold, or no map is left for training.
    """
    if fold not in FOLDS:
        raise ValueError(f"fold {fold!r} is unknown; allowed are {', '.join(FOLDS)}")
    if str(source) == BUILT_IN_ANATOMY:
        files: list[str] = [BUILT_IN_ANATOMY]
    else:
        if not Path(source).exists() and not must_exist:
            warnings.warn(f"{source} does not exist: there are no anatomies", stacklevel=2)
            return []
        files = [str(path) for path in label_map_files(source)]
    if len(files) > 1:
        if not 0 < held_out < len(files):
            raise ValueError(f"{len(files)} label maps in {source} cannot hold out {held_out}")
        files = files[:-held_out] if fold == "train" else files[-held_out:]
    names = [Path(file).name.split(".")[0] for file in files]
    return [{"case_id": f"{names[i % len(files)]}_{i:05d}", "anatomy": files[i % len(files)]} for i in range(studies)]
