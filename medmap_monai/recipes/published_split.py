"""A complete split from the files that PASSION published: ``python -m medmap_monai.recipes.published_split``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.splits import SplitRow, match_case, read_case_list, read_split, write_split

TEST_LIST = "test.txt"


def published_file(folder: Path, edition: str, combination: str) -> Path:
    """The published training split of a combination.

    Raises:
        FileNotFoundError: it is not in the folder.
    """
    path = folder / f"{edition.capitalize()}_imb_split_mr{combination}.csv"
    if not path.is_file():
        known = sorted(p.name for p in folder.glob("*_imb_split_mr*.csv"))
        raise FileNotFoundError(f"{path} does not exist; the folder holds {known or 'no published split'}")
    return path


def join_published(cohort: Path, training: Path, test: Path) -> list[SplitRow]:
    """Rows of all three folds: training cases and their modalities, test cases, and the others as validation cases.

    Args:
        cohort: folder or manifest; its case ids are used.
        training: published training split (``..._imb_split_mr2468.csv``).
        test: text file with one test case per line.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a listed case is not in the cohort, or is in both files.
    """
    scan = scan_cohort(cohort)
    known = {study.case_id for study in scan.studies} | {error.case_id for error in scan.errors}
    rows: dict[str, SplitRow] = {}
    listed = [*read_split(training, scan.edition.modalities), *(SplitRow(n, "test") for n in read_case_list(test))]
    for row in listed:
        case_id = match_case(row.case_id, known)
        source = training if row.fold == "train" else test
        if case_id is None:
            raise ValueError(f"{source} lists {row.case_id}, which {cohort} does not hold")
        if case_id in rows:
            raise ValueError(f"case {case_id} is in {training} and in {test}")
        rows[case_id] = SplitRow(case_id, row.fold, row.available)
    for case_id in known - set(rows):
        rows[case_id] = SplitRow(case_id, "val")
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(rows.values(), key=lambda row: (order[row.fold], row.case_id))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, help="folder of studies, or a manifest")
    parser.add_argument("--training", type=Path, required=True, help="published training split")
    parser.add_argument("--test", type=Path, required=True, help="text file with one test case per line")
    parser.add_argument("--output", type=Path, required=True, help="split file to write")
    given = parser.parse_args()
    try:
        rows = join_published(given.cohort, given.training, given.test)
        write_split(given.output, rows)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = {fold: sum(row.fold == fold for row in rows) for fold in ("train", "val", "test")}
    print(f"{given.output}: " + ", ".join(f"{fold} {n}" for fold, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
