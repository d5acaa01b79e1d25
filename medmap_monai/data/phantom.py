"""Phantom cohorts on disk: synthetic studies in a data set's exact layout, label values and geometry."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.phantom_files import case_files, write_case
from medmap_monai.data.phantom_recipe import GENERATOR, GENERATOR_VERSION, PhantomRecipe
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import remove_stale, temporary_prefix
from medmap_monai.utils.json_file import read_own_record
from medmap_monai.utils.synthetic import MARKER_FILE, write_synthetic_marker

NOTICE = (
    "SYNTHETIC PHANTOM. No patient was imaged: every voxel was computed. Results on these data show that software "
    "works; they say nothing about clinical performance."
)

Progress = Callable[[int, int], None]


def write_cohort(
    folder: str | os.PathLike[str],
    edition: str | Edition = "brats2020",
    cases: int = 24,
    shape: Sequence[int] = (64, 64, 64),
    seed: int = 0,
    first_case: int = 0,
    absent: Mapping[str, Sequence[str]] | None = None,
    missing_rates: Mapping[str, float] | None = None,
    p_no_et: float = 0.0,
    affine: str = "straight",
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Write a synthetic cohort as NIfTI files and return its folder, which appears only when it is complete.

    Args:
        folder: must not exist, or be empty.
        edition: an edition that can be written (``phantom_recipe.writable_editions()``). Brain editions get a brain
            with a glioma, MyoPS a short-axis heart with an infarct.
        cases: number of cases.
        shape: voxels per axis; for the heart the last axis counts slices (8 to 15 are usual).
        seed: seed of the cohort. Case k depends on ``seed`` and k alone, so that cohorts with different ``first_case``
            share no case unless their ranges overlap.
        first_case: index of the first case; continues the numbering of the names too.
        absent: case id, or case number in this cohort counted from 1, or ``last`` -> modalities whose files are left
            out; a case keeps at least one.
        missing_rates: modality -> share of the cases that lack it, drawn with ``seed``; for cases not in ``absent``.
        p_no_et: chance of a lesion that does not enhance (brain without ET, heart without scar).
        affine: ``straight`` (axes along the patient's, as in BraTS), or ``oblique`` (rotated about all three axes).
        progress: called with (cases done, cases) after each case.
        workers: threads; the result does not depend on it.

    Raises:
        ValueError: an argument out of range, naming what is allowed.
        FileExistsError: the folder exists and is not empty.
    """
    recipe = PhantomRecipe(
        get_edition(edition), cases, tuple(shape), seed, first_case, absent, missing_rates, p_no_et, affine
    )
    target = Path(os.path.abspath(folder))
    if target.exists() and not _is_vacant(target):
        raise FileExistsError(f"{target} exists and is not empty; a phantom cohort needs a folder of its own")
    return _write(target, recipe, progress, workers)


def ensure_cohort(
    folder: str | os.PathLike[str],
    edition: str | Edition = "brats2020",
    cases: int = 24,
    shape: Sequence[int] = (64, 64, 64),
    seed: int = 0,
    first_case: int = 0,
    absent: Mapping[str, Sequence[str]] | None = None,
    missing_rates: Mapping[str, float] | None = None,
    p_no_et: float = 0.0,
    affine: str = "straight",
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """The folder of such a cohort, written first if it is not there. Arguments as :func:`write_cohort`.

    Several processes may call it at once: one cohort wins, the others find it.

    Raises:
        ValueError: the folder holds a phantom cohort with other parameters, an incomplete one, or something else.
    """
    recipe = PhantomRecipe(
        get_edition(edition), cases, tuple(shape), seed, first_case, absent, missing_rates, p_no_et, affine
    )
    return ensure_recipe(folder, recipe, progress, workers)


def ensure_recipe(
    folder: str | os.PathLike[str], recipe: PhantomRecipe, progress: Progress | None = None, workers: int = 1
) -> Path:
    """:func:`ensure_cohort` of parameters that were checked already."""
    target = Path(os.path.abspath(folder))
    if not target.exists() or _is_vacant(target):
        try:
            return _write(target, recipe, progress, workers)
        except OSError:
            if not target.exists() or _is_vacant(target):
                raise  # otherwise another process was faster
    return _verified(target, recipe)


def _is_vacant(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _write(target: Path, recipe: PhantomRecipe, progress: Progress | None, workers: int) -> Path:
    cases = list(recipe.kept)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target.parent)
    temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(), suffix=f"-{target.name}", dir=target.parent))
    try:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            futures = [
                pool.submit(write_case, temporary, recipe, number, case_id)
                for number, case_id in enumerate(cases, start=recipe.first_case)
            ]
            try:
                for done, future in enumerate(futures, start=1):
                    future.result()
                    if progress is not None:
                        progress(done, len(cases))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        _describe(temporary, recipe)
        umask = os.umask(0)  # mkdtemp makes private folders; give this one ordinary permissions
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        os.replace(temporary, target)  # fails when another process has put a cohort there meanwhile
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _describe(root: Path, recipe: PhantomRecipe) -> None:
    title = recipe.edition.title
    write_synthetic_marker(root, f"Phantom cohort in the layout of {title}", {"notice": NOTICE, **recipe.description})
    what = f"{counted(recipe.cases, 'case')} of {'x'.join(map(str, recipe.shape))} voxels"
    (root / "README.txt").write_text(
        f"{NOTICE}\n\n{what} in the layout and with the label values of {title}.\n"
        f"Written by `medmap phantom`, generator version {GENERATOR_VERSION}, seed {recipe.seed}, first case "
        f"{recipe.first_case}; all parameters are in {MARKER_FILE}.\n",
        encoding="utf-8",
    )


def _verified(target: Path, recipe: PhantomRecipe) -> Path:
    """``target``, when it holds exactly the cohort of the recipe."""
    found = read_own_record(target / MARKER_FILE)
    if found is None or found.get("generator") != GENERATOR:
        raise ValueError(f"{target} exists and is not a phantom cohort; choose another folder")
    different = [
        _difference(key, found.get(key), value) for key, value in recipe.description.items() if found.get(key) != value
    ]
    if different:
        raise ValueError(
            f"{target} holds a phantom cohort with other parameters ({'; '.join(different)}); "
            "delete it or choose another folder"
        )
    for case_id in recipe.kept:
        for path, _ in case_files(target, recipe, case_id):
            if not path.is_file():
                raise ValueError(f"phantom cohort {target} is incomplete: {path} is gone; delete the cohort")
    return target


def _difference(key: str, found: Any, wanted: Any) -> str:
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return f"{key}: {found} there, {wanted} asked for"
    if len(found) != len(wanted):
        return f"{key}: {len(found)} there, {len(wanted)} asked for"
    first = next((name for name in wanted if found.get(name) != wanted[name]), None)
    return f"{key}: {first} is {found.get(first)} there, {wanted.get(first)} asked for"
