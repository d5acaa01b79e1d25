"""Synthetic studies as a cohort on disk: NIfTI files in a data set's layout, which every command accepts."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.phantom_files import case_files
from medmap_monai.data.phantom_recipe import MissingFiles, PhantomRecipe
from medmap_monai.data.seeded_dataset import item_seed
from medmap_monai.synthesis.anatomy import label_map_files, load_anatomy
from medmap_monai.synthesis.mni import mni_anatomy
from medmap_monai.synthesis.priors import load_priors
from medmap_monai.synthesis.records import BUILT_IN_ANATOMY
from medmap_monai.synthesis.study import SyntheticStudy, synthesize_study
from medmap_monai.utils.json_file import read_own_record
from medmap_monai.utils.synthetic import MARKER_FILE, write_synthetic_marker

GENERATOR = "medmap_monai.synthesis"
GENERATOR_VERSION = "1"
_WINDOW = (168.0, 208.0, 168.0)  # mm; holds every adult brain
_SCALE = 600  # brightness 1 on disk, as whole numbers


def write_synthetic_cohort(
    folder: str | os.PathLike[str],
    anatomy: str | os.PathLike[str] = BUILT_IN_ANATOMY,
    cases: int = 10,
    spacing: float = 1.0,
    edition: str | Edition = "brats2020",
    priors: str | os.PathLike[str] | Mapping[str, Any] = "default",
    seed: int = 0,
    first_case: int = 0,
    missing: MissingFiles | None = None,
    anatomies: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
) -> Path:
    """Write a cohort of synthetic brain tumour studies; the folder appears only when it is complete.

    Args:
        folder: must not exist, or be empty.
        anatomy: folder of brain label maps (or one file), or ``mni152`` (extra ``synthesis``).
        cases: number of studies; label maps take turns.
        spacing: voxel size in mm.
        edition: layout and label values; an edition that ``medmap phantom`` can write for the brain.
        priors: see :func:`~medmap_monai.synthesis.priors.load_priors`; ``shifted`` for test sets.
        seed: study k depends on ``seed``, k and its label map alone.
        first_case: index of the first study; continues the names too.
        missing: files to leave out.
        anatomies: first and last label map to use, counted from 1; None takes all.
        progress: called with (studies done, studies).
        workers: processes that write studies, one thread each; 0 writes them in this one. The files are the same.

    Raises:
        ValueError: an argument out of range.
        FileExistsError: the folder exists and is not empty.
        FileNotFoundError: no label maps.
    """
    chosen = get_edition(edition)
    if not 0.3 <= spacing <= 6:
        raise ValueError(f"spacing must lie between 0.3 and 6 mm, got {spacing:g}")
    shape = tuple(int(np.ceil(size / spacing / 8) * 8) for size in _WINDOW)
    recipe = PhantomRecipe(chosen, cases, shape, seed, first_case, *(missing or MissingFiles()))
    if recipe.body_part != "brain":
        raise ValueError(
            f"edition {chosen} is no brain tumour data set; there is no anatomy of the heart to build from"
        )
    table = load_priors(priors)
    target = Path(os.path.abspath(folder))
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} exists and is not empty; a synthetic cohort needs a folder of its own")
    files = _label_maps(anatomy, anatomies)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", suffix=f"-{target.name}", dir=target.parent))
    kinds = {}
    details = _details(chosen, table["name"], anatomy, cases, spacing, seed, first_case, anatomies)
    work = _Work(temporary, recipe, files, spacing, table, seed)
    numbers = range(first_case, first_case + len(recipe.kept))
    try:
        with _mapping(min(workers, cases)) as mapped:
            written = mapped(partial(_synthesize_and_write, work), numbers, recipe.kept)
            for done, (case_id, made) in enumerate(zip(recipe.kept, written, strict=True), start=1):
                kinds[case_id] = made
                if progress is not None:
                    progress(done, cases)
        name = f"Synthetic brain tumours (priors {table['name']})"
        write_synthetic_marker(temporary, name, {**details, "studies": kinds})
        umask = os.umask(0)  # mkdtemp makes private folders; give this one ordinary permissions
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def ensure_synthetic_cohort(
    folder: str | os.PathLike[str],
    anatomy: str | os.PathLike[str] = BUILT_IN_ANATOMY,
    cases: int = 10,
    spacing: float = 1.0,
    edition: str | Edition = "brats2020",
    priors: str | os.PathLike[str] = "default",
    seed: int = 0,
    first_case: int = 0,
    anatomies: tuple[int, int] | None = None,
    workers: int = 0,
) -> Path:
    """The folder of such a cohort, written first if it is not there. Arguments as :func:`write_synthetic_cohort`.

    Raises:
        ValueError: the folder holds something else, or a cohort with other parameters.
    """
    target = Path(folder)
    if not target.exists() or not any(target.iterdir()):
        try:
            return write_synthetic_cohort(
                target,
                anatomy,
                cases,
                spacing,
                edition,
                priors,
                seed,
                first_case,
                anatomies=anatomies,
                workers=workers,
            )
        except OSError:
            if not target.exists():
                raise  # otherwise another process was faster
    found = read_own_record(target / MARKER_FILE) or {}
    wanted = _details(
        get_edition(edition), load_priors(priors)["name"], anatomy, cases, spacing, seed, first_case, anatomies
    )
    other = [key for key, value in wanted.items() if found.get(key) != value]
    if other:
        raise ValueError(f"{target} holds something else (differs in {', '.join(other)}); delete it or choose another")
    return target


def _details(
    edition: Edition,
    priors: str,
    anatomy: str | os.PathLike[str],
    cases: int,
    spacing: float,
    seed: int,
    first_case: int,
    anatomies: tuple[int, int] | None,
) -> dict[str, Any]:
    return {
        "notice": "SYNTHETIC. Computed from label maps of brains; no patient with a tumour was imaged.",
        "generator": GENERATOR,
        "generator_version": GENERATOR_VERSION,
        "edition": str(edition),
        "priors": priors,
        "anatomy": Path(anatomy).name,
        **({} if anatomies is None else {"anatomies": f"{anatomies[0]}-{anatomies[1]}"}),
        "cases": cases,
        "spacing": spacing,
        "seed": seed,
        "first_case": first_case,
    }


def _label_maps(anatomy: str | os.PathLike[str], anatomies: tuple[int, int] | None) -> Sequence[Path | None]:
    """Files to take turns with; None stands for the built-in anatomy."""
    if str(anatomy) == BUILT_IN_ANATOMY:
        return [None]
    files = label_map_files(anatomy)
    if anatomies is None:
        return files
    first, last = anatomies
    if not 1 <= first <= last <= len(files):
        raise ValueError(f"label maps {first} to {last} were asked for; {anatomy} holds {len(files)}")
    return files[first - 1 : last]


class _Work(NamedTuple):
    """What every study of a cohort needs; processes get a copy each."""

    root: Path
    recipe: PhantomRecipe
    files: Sequence[Path | None]
    spacing: float
    table: dict[str, Any]
    seed: int


def _synthesize_and_write(work: _Work, number: int, case_id: str) -> dict[str, str]:
    """Make and write study ``number``: which anatomy it has, and what kind of tumour."""
    file = work.files[number % len(work.files)]
    brain = mni_anatomy(work.spacing) if file is None else load_anatomy(file, work.spacing)
    state = np.random.RandomState(item_seed(work.seed, 0, number))
    names = work.recipe.edition.modalities.names
    study = synthesize_study(brain, names, work.recipe.shape, work.spacing, work.table, state)
    _write_study(work.root, work.recipe, case_id, study, work.spacing)
    return {"anatomy": brain.name, "kind": study.kind}


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Any]]:
    """``map`` over this process, or over ``workers`` processes in the order of the arguments."""
    if workers < 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # a forked process inherits locks of this one's threads
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)


def _write_study(root: Path, recipe: PhantomRecipe, case_id: str, study: SyntheticStudy, spacing: float) -> None:
    """Files on an LPS grid, as BraTS has them."""
    lookup = np.array(
        [recipe.edition.disk_values.get(index, 0) for index in range(max(recipe.edition.disk_values) + 1)]
    )
    names = recipe.edition.modalities.names
    matrix = np.diag([-spacing, -spacing, spacing, 1.0])
    matrix[1, 3] = (recipe.shape[1] - 1) * spacing
    for path, modality in case_files(root, recipe, case_id):
        path.parent.mkdir(parents=True, exist_ok=True)
        if modality is None:
            values = lookup[study.label[0].numpy()].astype(np.uint8 if lookup.max() < 256 else np.int16)
        else:
            image = study.image[names.index(modality)].numpy()
            whole = np.rint(image * _SCALE)
            values = np.where(image > 0, np.maximum(whole, 1), whole).astype(np.int16)  # 0 means outside
        volume = nib.Nifti1Image(np.ascontiguousarray(values[::-1, ::-1]), matrix)
        volume.set_sform(matrix, 1)
        volume.set_qform(matrix, 1)
        volume.header.set_xyzt_units("mm", "sec")
        volume.header["descrip"] = b"SYNTHETIC STUDY (medmap-monai)"
        nib.save(volume, path)
