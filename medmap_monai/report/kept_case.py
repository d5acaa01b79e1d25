"""The case that stands for a run, and the worst one: their label maps of every subset, and their picture."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from medmap_monai.engines.case_maps import CaseMaps, read_case_id, read_case_maps
from medmap_monai.report.qualitative_grid import qualitative_figure
from medmap_monai.report.runs import EvaluationRun

_METRIC = "dice"


def kept_case(run: EvaluationRun, worst: bool = False) -> CaseMaps | None:
    """The kept case with the median Dice, so that neither the best nor the worst one stands for all.

    Args:
        run: an evaluation.
        worst: give the case with the lowest Dice instead; None unless there is another one.

    Returns:
        None where no label map was kept.
    """
    dice = run.table[run.table["metric"] == _METRIC].groupby("case_id")["value"].mean()
    paths = {read_case_id(path): path for path in run.maps()}
    paths = {case_id: path for case_id, path in paths.items() if case_id in dice.index}  # others: an earlier fold's
    order = sorted(paths, key=lambda case_id: (dice[case_id], case_id))
    if len(order) <= worst:
        return None
    return read_case_maps(paths[order[0 if worst else len(order) // 2]])


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
