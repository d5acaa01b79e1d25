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
GAP_FILE = "gap.csv"
#: what makes a row of each file unique
_SCORE_KEYS = ["variant", "seed", "case_id"]
_GAP_KEYS = ["variant", "seed", "level"]


class ComparisonRecords(NamedTuple):
    """Scores, modality gaps and distances of the runs of a comparison.

    scores: one row per run and case: ``variant``, ``seed``, ``case_id``, and for every subset and region a column
        ``SUBSET_ID:SUBSET:REGION`` with the Dice in per cent (two decimals); post-processed regions are left out.
    gap: one row per run and level: ``variant``, ``seed``, ``level`` and the measures of
        :class:`~medmap_monai.engines.encoder_features.LevelGap`.
    distances: as ``scores``, with HD95 in mm (one decimal).
    """

    scores: pd.DataFrame
    gap: pd.DataFrame
    distances: pd.DataFrame

    def updated(self, newer: ComparisonRecords) -> ComparisonRecords:
        """These records with the runs of ``newer`` added; a run that both have is taken from ``newer``."""
        return ComparisonRecords(
            _updated(self.scores, newer.scores, _SCORE_KEYS),
            _updated(self.gap, newer.gap, _GAP_KEYS),
            _updated(self.distances, newer.distances, _SCORE_KEYS),
        )

    def dice(self) -> pd.DataFrame:
        """Scores as a long table: one row per run, case, subset and region; ``modalities`` is their number."""
        return self._long(self.scores, "dice")

    def hd95(self) -> pd.DataFrame:
        """Distances as a long table like :meth:`dice`."""
        return self._long(self.distances, "hd95")

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
    scores, gaps, distances = [], [], []
    for summary in sorted(folder.glob(f"runs/*/seed*/evaluation/{SUMMARY_FILE}")):
        run = summary.parent.parent
        named: dict[str, Any] = {"variant": run.parent.name, "seed": int(run.name.removeprefix("seed"))}
        regions = read_json(summary, "summary", "evaluate that run anew")["regions"]
        plain = [name for name, region in regions.items() if not region["minimum_voxels"]]
        table = read_metrics(summary.parent / METRICS_FILE)
        table = table[table["region"].isin(plain)]
        scores.append(_wide(table, "dice", 100.0, 2).assign(**named))
        distances.append(_wide(table, "hd95", 1.0, 1).assign(**named))
        if (features := run / "features.npz").is_file():
            levels = gap_per_level(load_features(features))
            rows = [{**named, "level": level.level, **level.gap._asdict(), **_collapse(level)} for level in levels]
            gaps.append(pd.DataFrame(rows).round(4))
    return ComparisonRecords(_joined(scores, _SCORE_KEYS), _joined(gaps, _GAP_KEYS), _joined(distances, _SCORE_KEYS))


def read_records(folder: Path) -> ComparisonRecords:
    """Records written by :func:`write_records`; empty where there are none."""
    names = {SCORES_FILE: _SCORE_KEYS, GAP_FILE: _GAP_KEYS, DISTANCES_FILE: _SCORE_KEYS}
    files = [(folder / name, keys) for name, keys in names.items()]
    tables = [[pd.read_csv(path)] if path.is_file() else [] for path, _ in files]
    return ComparisonRecords(*(_joined(table, keys) for table, (_, keys) in zip(tables, files, strict=True)))


def write_records(records: ComparisonRecords, folder: Path) -> None:
    """Write the files, none for an empty table of distances; the same records give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = {SCORES_FILE: records.scores, DISTANCES_FILE: records.distances}
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
