"""What a comparison measured, in small files, so that its tables can be made again without the runs."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from medmap_monai.engines.encoder_features import gap_per_level, load_features
from medmap_monai.engines.results_store import METRICS_FILE, SUMMARY_FILE, read_metrics
from medmap_monai.utils.files import atomic_path
from medmap_monai.utils.json_file import read_json

SCORES_FILE = "scores.csv.gz"
DISTANCES_FILE = "hd95.csv.gz"
EXAMPLE_FILE = "example.csv.gz"
GAP_FILE = "gap.csv"
#: what makes a row of each file unique
_SCORE_KEYS = ["variant", "seed", "case_id"]
_GAP_KEYS = ["variant", "seed", "level"]
_KEYS = {"scores": _SCORE_KEYS, "gap": _GAP_KEYS, "distances": _SCORE_KEYS, "example": _SCORE_KEYS}
_FILES = {"scores": SCORES_FILE, "gap": GAP_FILE, "distances": DISTANCES_FILE, "example": EXAMPLE_FILE}


class ComparisonRecords(NamedTuple):
    """Scores, modality gaps and distances of the runs of a comparison.

    scores: one row per run and case: ``variant``, ``seed``, ``case_id``, and for every subset and region a column
        ``SUBSET_ID:SUBSET:REGION`` with the Dice in per cent (two decimals); post-processed regions are left out.
    gap: one row per run and level: ``variant``, ``seed``, ``level`` and the measures of
        :class:`~medmap_monai.engines.encoder_features.LevelGap`.
    distances: as ``scores``, with HD95 in mm (one decimal).
    example: as ``scores``, of the studies shown beside the table and never averaged with it.
    """

    scores: pd.DataFrame
    gap: pd.DataFrame
    distances: pd.DataFrame
    example: pd.DataFrame

    def updated(self, newer: ComparisonRecords) -> ComparisonRecords:
        """These records with the runs of ``newer`` added; a run that both have is taken from ``newer``."""
        return ComparisonRecords(
            _updated(self.scores, newer.scores, _SCORE_KEYS),
            _updated(self.gap, newer.gap, _GAP_KEYS),
            _updated(self.distances, newer.distances, _SCORE_KEYS),
            _updated(self.example, newer.example, _SCORE_KEYS),
        )

    def dice(self) -> pd.DataFrame:
        """Scores as a long table: one row per run, case, subset and region; ``modalities`` is their number."""
        return self._long(self.scores, "dice")

    def hd95(self) -> pd.DataFrame:
        """Distances as a long table like :meth:`dice`."""
        return self._long(self.distances, "hd95")

    def examples(self) -> pd.DataFrame:
        """Scores of the examples as a long table like :meth:`dice`."""
        return self._long(self.example, "dice")

    @staticmethod
    def _long(table: pd.DataFrame, value: str) -> pd.DataFrame:
        long = table.melt(id_vars=_SCORE_KEYS, var_name="column", value_name=value).dropna(subset=value)
        if long.empty:
            return long.drop(columns="column").assign(subset_id=[], subset=[], modalities=[], region=[])
        names = long.pop("column").str.split(":", expand=True)
        count = names[1].str.count(r"\+") + 1
        return long.assign(subset_id=names[0].astype(int), subset=names[1], modalities=count, region=names[2])


def read_runs(folder: Path) -> ComparisonRecords:
    """Records of every finished run below ``folder`` (that of ``compare_methods.py``); empty where there is none."""
    scores, gaps, distances, examples = [], [], [], []
    for summary in sorted(folder.glob(f"runs/*/seed*/evaluation/{SUMMARY_FILE}")):
        run = summary.parent.parent
        named: dict[str, Any] = {"variant": run.parent.name, "seed": int(run.name.removeprefix("seed"))}
        table = _measured(summary)
        scores.append(_wide(table, "dice", 100.0, 2).assign(**named))
        distances.append(_wide(table, "hd95", 1.0, 1).assign(**named))
        if (shown := run / "example" / SUMMARY_FILE).is_file():
            examples.append(_wide(_measured(shown), "dice", 100.0, 2).assign(**named))
        if (features := run / "features.npz").is_file():
            levels = gap_per_level(load_features(features))
            rows = [{**named, "level": level.level, **level.gap._asdict(), **_collapse(level)} for level in levels]
            gaps.append(pd.DataFrame(rows).round(4))
    rows_of = {"scores": scores, "gap": gaps, "distances": distances, "example": examples}
    return ComparisonRecords(**{name: _joined(rows, _KEYS[name]) for name, rows in rows_of.items()})


def _measured(summary: Path) -> pd.DataFrame:
    """Scores of an evaluation, without those of post-processed regions."""
    regions = read_json(summary, "summary", "evaluate that run anew")["regions"]
    plain = [name for name, region in regions.items() if not region["minimum_voxels"]]
    table = read_metrics(summary.parent / METRICS_FILE)
    return table[table["region"].isin(plain)]


def read_records(folder: Path) -> ComparisonRecords:
    """Records written by :func:`write_records`; empty where there are none."""
    found = {name: [pd.read_csv(folder / file)] if (folder / file).is_file() else [] for name, file in _FILES.items()}
    return ComparisonRecords(**{name: _joined(tables, _KEYS[name]) for name, tables in found.items()})


def write_records(records: ComparisonRecords, folder: Path) -> None:
    """Write the files, none for an empty table of distances or examples; the same records give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = {SCORES_FILE: records.scores, DISTANCES_FILE: records.distances, EXAMPLE_FILE: records.example}
    for name, table in packed.items():
        if name == SCORES_FILE or not table.empty:
            with atomic_path(folder / name) as temporary:
                text = table.to_csv(index=False, lineterminator="\n")
                temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
    with atomic_path(folder / GAP_FILE) as temporary:
        records.gap.to_csv(temporary, index=False, lineterminator="\n")


def _wide(table: pd.DataFrame, metric: str, factor: float, digits: int) -> pd.DataFrame:
    """One row per case, one column per subset and region."""
    table = table[table["metric"] == metric]
    column = table["subset_id"].astype(str) + ":" + table["subset"] + ":" + table["region"]
    value = (factor * table["value"]).round(digits)
    wide = table.assign(column=column, value=value).pivot(index="case_id", columns="column", values="value")
    return wide[list(dict.fromkeys(column))].rename_axis(columns=None).reset_index()


def _collapse(level: Any) -> dict[str, float]:
    return {"effective_rank": level.effective_rank, "spatial_sd": level.spatial_sd}


def _joined(tables: Sequence[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    """All rows under each other in the order of ``keys``, which come first."""
    if not tables:
        return pd.DataFrame(columns=keys)
    table = pd.concat(tables, ignore_index=True)
    rest = [name for name in table.columns if name not in keys]
    return table[[*keys, *rest]].sort_values(keys, ignore_index=True)


def _updated(old: pd.DataFrame, new: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    runs = set(new[["variant", "seed"]].itertuples(index=False, name=None))
    kept = [run not in runs for run in old[["variant", "seed"]].itertuples(index=False, name=None)]
    return _joined([table for table in (old[kept], new) if len(table)], keys)
