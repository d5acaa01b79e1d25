"""The case that stands for a run: its label maps of every subset, and their picture."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from medmap_monai.engines.case_maps import CaseMaps, read_case_maps
from medmap_monai.report.qualitative_grid import qualitative_figure
from medmap_monai.report.runs import EvaluationRun

_METRIC = "dice"


def kept_case(run: EvaluationRun) -> CaseMaps | None:
    """The kept case with the median Dice, so that neither the best nor the worst one stands for all."""
    paths = run.maps()
    if not paths:
        return None
    dice = run.table[run.table["metric"] == _METRIC].groupby("case_id")["value"].mean()
    cases = sorted((read_case_maps(path) for path in paths), key=lambda maps: (dice.get(maps.case_id, 0), maps.case_id))
    return cases[len(cases) // 2]


def case_dice(run: EvaluationRun, maps: CaseMaps) -> dict[str, dict[str, float]]:
    """Subset -> region -> Dice of one case; regions with post-processing are left out."""
    plain = [name for name, region in run.summary["regions"].items() if not region["minimum_voxels"]]
    table = run.table[(run.table["case_id"] == maps.case_id) & (run.table["metric"] == _METRIC)]
    cells = zip(table["subset"], table["region"], table["value"].astype(float), strict=True)
    values = {(subset, region): value for subset, region, value in cells}
    return {s: {r: values[s, r] for r in plain if (s, r) in values} for s in maps.predictions}


def kept_case_figure(run: EvaluationRun, maps: CaseMaps) -> Figure:
    """The case segmented from every subset beside the ground truth, Dice (%) below each."""
    dice: Mapping[str, Mapping[str, float]] = case_dice(run, maps)

    def caption(subset: str) -> str:
        return "  ".join(f"{region} {100 * value:.0f}" for region, value in dice[subset].items())

    return qualitative_figure(maps, caption)
