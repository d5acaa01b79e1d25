"""``medmap split``: folds, and imbalanced missing rates, as a split file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medmap_monai.utils.counted import counted

if TYPE_CHECKING:
    from medmap_monai.data.edition import Edition
    from medmap_monai.data.splits import SplitRow

PUBLISHED_SEED = 1037


def split(
    cases: str = typer.Option(
        ..., help="Case list (.txt, one per line), data folder, manifest (.csv, .json), or a number: cases #001 to #N."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Split file to write, .csv or .json."),
    combination: str | None = typer.Option(
        None,
        help="Missing rates x10 as in the papers: 2468 = .2 .4 .6 .8 for T1, T1ce, FLAIR, T2; 357 for bSSFP, LGE, T2.",
    ),
    missing_rates: str | None = typer.Option(None, help="The same by name, for any modalities: t1=0.2,t2=0.8."),
    edition: str | None = typer.Option(
        None, help="Modalities and their order. Default: detected in a folder, brats2020 for a case list."
    ),
    train: float | None = typer.Option(None, help="Training cases: number, or fraction below 1. Default: the rest."),
    val: float = typer.Option(0, help="Validation cases, the same."),
    test: float = typer.Option(0, help="Test cases, the same."),
    seed: int | None = typer.Option(None, min=0, help="Seed of folds and draw. Default: 0; with --compat 1037."),
    strata: Path | None = typer.Option(None, help="CSV file with a stratum per case; folds hold each in proportion."),
    strata_columns: str = typer.Option("case_id,stratum", help="Its two columns: case id, stratum."),
    allocation: str = typer.Option(
        "expected", help="expected: the expected number of cases per subset, at least one; independent: case by case."
    ),
    withhold_from: str = typer.Option("train", help="Folds that the missing rates apply to, such as train,val."),
    compat: str | None = typer.Option(None, help="passion: algorithm, seed and format of the published split files."),
) -> None:
    """Assign cases to train, val and test, and decide which modalities each training case has.

    All cases of a patient go to one fold: by the pattern of the edition's case ids (BraTS-GLI-00005-000 and -001 are
    one patient), or by the column 'group' of a manifest.

    Nominal and realised missing rates are printed; they differ a little, since no case may be left with nothing.

    Examples:

      medmap split --cases cohort/ --val 0.1 --test 0.2 --combination 2468 --output split.csv

      medmap split --cases train.txt --combination 2468 --compat passion --output published.csv
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.data.make_split import make_split, read_strata
    from medmap_monai.data.splits import write_split

    try:
        chosen, patients = _cases(cases, edition, needs_all=bool(combination or missing_rates))
        names = sorted(patients)
        rates = _rates(chosen, combination, missing_rates)
        if compat is not None:
            if train is not None or val or test or strata is not None or allocation != "expected":
                raise ValueError("the published format holds one fold: leave --train, --val, --test, --strata out")
            _write_published(compat, chosen, names, rates, output, PUBLISHED_SEED if seed is None else seed)
        else:
            groups = None if strata is None else read_strata(strata, *_two_columns(strata_columns))
            lacking = [name for name in names if groups is not None and name not in groups]
            if lacking:
                raise ValueError(
                    f"strata file {strata} has no row for {len(lacking)} of {counted(len(names), 'case')}, "
                    f"such as {lacking[0]}; add a row with its {strata_columns.replace(',', ' and ')}"
                )
            folds = [fold.strip() for fold in withhold_from.split(",")]
            rows = make_split(
                names, chosen.modalities, rates, val, test, train, seed or 0, groups, allocation, folds, patients
            )
            write_split(output, rows)
            _print_folds(rows, len(names), rates)
            count = len(set(patients.values()))
            if count < len(names):
                told = f"{counted(len(names), 'case')} of {counted(count, 'patient')}"
                typer.echo(f"{told}; all cases of a patient are in one fold")
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(f"written to {output}")


def _cases(source: str, edition: str | None, needs_all: bool) -> tuple[Edition, dict[str, str]]:
    """Edition of a list, a folder, a manifest or a number of cases, and the patient of each case."""
    from medmap_monai.data.cohort import scan_cohort
    from medmap_monai.data.editions import get_edition
    from medmap_monai.data.patients import patient_of_study, patients_of
    from medmap_monai.data.splits import numbered_cases, read_case_list
    from medmap_monai.data.studies import combine_errors

    if source.isdecimal():
        return get_edition(edition or "brats2020"), {name: name for name in numbered_cases(int(source))}
    if Path(source).suffix == ".txt":
        return get_edition(edition or "brats2020"), patients_of(read_case_list(source), edition)
    scan = scan_cohort(source, edition)
    if scan.errors:
        raise combine_errors(scan.errors)
    for study in scan.studies:
        lacking = [name for name in scan.edition.modalities if name not in study.images]
        if lacking and needs_all:
            raise ValueError(
                f"case {study.case_id} has no {' and no '.join(lacking)} on disk; missing rates are drawn over "
                "complete cases: leave it out, or split without rates"
            )
    return scan.edition, {study.case_id: patient_of_study(study) for study in scan.studies}


def _rates(edition: Edition, combination: str | None, missing_rates: str | None) -> dict[str, float] | None:
    """Nominal rates in the edition's order of drawing, so that the order on the command line does not matter."""
    from medmap_monai.data.splits import parse_rates, rates_of_combination

    if combination and missing_rates:
        raise ValueError("give --combination or --missing-rates, not both")
    if combination:
        return rates_of_combination(combination, edition)
    if not missing_rates:
        return None
    given = parse_rates(missing_rates)
    edition.modalities.mask(given)  # an error that names what is unknown
    return {name: given.get(name, 0.0) for name in edition.rate_order or edition.modalities}


def _two_columns(text: str) -> list[str]:
    columns = [column.strip() for column in text.split(",")]
    if len(columns) != 2:
        raise ValueError(f"--strata-columns must be two names, case id and stratum, got {text!r}")
    return columns


def _print_folds(rows: Sequence[SplitRow], cases: int, rates: Mapping[str, float] | None) -> None:
    counts = Counter(row.fold for row in rows)
    typer.echo(f"{len(rows)} of {counted(cases, 'case')}: " + ", ".join(f"{fold} {n}" for fold, n in counts.items()))
    if rates:
        _print_rates([row.available for row in rows if row.available is not None], rates)


def _write_published(
    compat: str, edition: Edition, names: list[str], rates: dict[str, float] | None, output: Path, seed: int
) -> None:
    from medmap_monai.data.availability import draw_availability
    from medmap_monai.data.published_splits import format_passion
    from medmap_monai.utils.files import write_text

    if compat != "passion":
        raise ValueError(f"--compat {compat!r} is unknown; allowed is passion")
    if rates is None or output.suffix != ".csv":
        raise ValueError("--compat passion needs --combination or --missing-rates, and an --output that ends in .csv")
    available = draw_availability(len(names), rates, seed, "passion")
    write_text(output, format_passion(names, available, edition.modalities))
    typer.echo(f"{counted(len(names), 'case')} in the published format")
    _print_rates(available, rates)


def _print_rates(available: Sequence[Sequence[str]], rates: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    from medmap_monai.data.availability import realised_rates

    table = Table("modality", "nominal missing", "realised missing", "cases that have it")
    for name, realised in realised_rates(available, list(rates)).items():
        having = sum(name in names for names in available)
        table.add_row(name, f"{rates[name]:.2f}", f"{realised:.3f}", f"{having} of {len(available)}")
    Console().print(table)
