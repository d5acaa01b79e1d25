"""Look at every study before anything is trained on it: ``python -m medmap_monai.recipes.prepare_cohort``."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.edition import Edition
from medmap_monai.data.manifest import write_manifest
from medmap_monai.data.study import Study, StudyError
from medmap_monai.utils.files import write_text

MANIFEST_FILE = "manifest.csv"
BROKEN_FILE = "broken.csv"


def prepare(
    source: Path, output: Path, edition: str | None = None, resample: bool = False, workers: int = 1
) -> tuple[list[Study], list[StudyError]]:
    """Read every study of a cohort as training would, write ``manifest.csv`` of the sound ones and ``broken.csv``.

    A study is sound when every modality of the edition and a label exist, all files can be read and lie on one grid,
    and the label holds values of the edition only. Papers train on such studies and hide modalities by a split.

    Args:
        source: folder of studies, or a manifest.
        output: folder of the two files.
        edition: data-set edition; detected when None.
        resample: accept modalities on other grids, which training then resamples.
        workers: threads.

    Returns:
        the sound studies, and one error per other study.

    Raises:
        FileNotFoundError: no such source.
        ValueError: the source holds no study, or of more than one edition.
    """
    from medmap_monai.transforms.load_study import LoadStudy  # MONAI takes seconds to import

    scan = scan_cohort(source, edition)
    loader = LoadStudy(scan.edition.modalities, edition=scan.edition, label="required", resample=resample)
    good: list[Study] = []
    errors = list(scan.errors)
    with ThreadPoolExecutor(workers) as pool:
        problems = pool.map(lambda study: _problem(study, scan.edition, loader), scan.studies)
        for study, problem in zip(scan.studies, problems, strict=True):
            if problem is None:
                good.append(study)
            else:
                errors.append(problem)
    errors.sort(key=lambda error: error.case_id)
    write_text(output / BROKEN_FILE, _table(errors))
    if good:
        write_manifest(output / MANIFEST_FILE, good)
    return good, errors


def _problem(study: Study, edition: Edition, loader: Callable[[Study], Any]) -> StudyError | None:
    lacking = [name for name in edition.modalities if name not in study.images]
    if lacking:
        return StudyError(study.case_id, f"no {', no '.join(lacking)}; the paper's experiments need complete studies")
    try:
        loader(study)
    except StudyError as error:
        return error
    return None


def _table(errors: list[StudyError]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case_id", "file", "reason"))
    writer.writerows((e.case_id, "" if e.path is None else e.path, " ".join(e.message.split())) for e in errors)
    return text.getvalue()


def _lines(errors: list[StudyError]) -> Iterator[str]:
    yield from (f"  {error}" for error in errors[:20])
    if len(errors) > 20:
        yield f"  and {len(errors) - 20} more in {BROKEN_FILE}"


def main() -> int:
    """Command line; the exit code is 1 when a study is broken and ``--leave-out-broken`` is not given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of studies, or a manifest")
    parser.add_argument("--output", type=Path, required=True, help=f"folder for {MANIFEST_FILE} and {BROKEN_FILE}")
    parser.add_argument("--edition", help="data-set edition (default: detected)")
    parser.add_argument("--resample", action="store_true", help="accept modalities that lie on different grids")
    parser.add_argument("--leave-out-broken", action="store_true", help="go on without the broken studies")
    parser.add_argument("--workers", type=int, default=1, help="threads")
    given = parser.parse_args()
    try:
        good, errors = prepare(given.source, given.output, given.edition, given.resample, given.workers)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(good)} sound studies, {len(errors)} broken")
    for line in _lines(errors):
        print(line, file=sys.stderr)
    if errors and not (given.leave_out_broken and good):
        print("repair them, or leave them out with --leave-out-broken", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
