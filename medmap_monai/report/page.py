"""The report: one self-contained HTML page, and its figures and tables as files for papers."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from medmap_monai import __version__
from medmap_monai.engines.case_maps import CaseMaps
from medmap_monai.engines.encoder_features import EncoderFeatures, load_features
from medmap_monai.metrics.summary import paired_gains
from medmap_monai.report import display
from medmap_monai.report.comparison import compare_runs
from medmap_monai.report.contribution_figure import contribution_figure, contributions
from medmap_monai.report.curves import balance_figure, training_figure
from medmap_monai.report.distributions import distribution_figure
from medmap_monai.report.embedding import embedding_figure, level_gaps
from medmap_monai.report.figure_style import (
    FigureFiles,
    cell_colour,
    gain_colour,
    modality_colours,
    save_figure,
)
from medmap_monai.report.heat_map import colour_shares, heat_map_figure
from medmap_monai.report.kept_case import case_dice, kept_case, kept_case_figure
from medmap_monai.report.main_table import MainTable, main_table, table_csv, table_latex
from medmap_monai.report.runs import (
    BALANCE_FILE,
    FEATURES_FILE,
    TRAINING_FILE,
    EvaluationRun,
    check_comparable,
    unlike_references,
)
from medmap_monai.report.viewer_data import niivue_script, share_images, viewer_case
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import write_text

MAIN_METRIC = "dice"
#: bytes; a page that grows beyond is not mailed or archived easily
PAGE_LIMIT = 20_000_000
#: bytes for the volumes of all cases together, less what the figures of a run take
VIEWER_BUDGET = 15_000_000
_RUN_BYTES, _LEAST_BUDGET = 800_000, 2_000_000


class Report(NamedTuple):
    """``page``: the HTML file; ``folder``: figures (PNG, SVG) and tables (CSV, LaTeX); ``size``: bytes of the page."""

    page: Path
    folder: Path
    size: int


def write_report(
    runs: Sequence[EvaluationRun], output: str | os.PathLike[str], title: str = "", viewer: bool = True
) -> Report:
    """Write the report of one run, or of several side by side.

    Args:
        runs: evaluations with the same modalities, regions and subsets.
        output: the HTML file; figures and tables go to ``<stem>_files`` beside it.
        title: heading; default is made of the names of the runs.
        viewer: put the interactive viewer into the page, where label maps were kept.

    Raises:
        RunError: the runs cannot stand side by side.
        ValueError: a log beside a run is not what its name says.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    check_comparable(runs)
    page = Path(output)
    folder = page.with_name(page.stem + "_files")
    writer = _Writer(runs, folder)
    cases = [kept_case(run) for run in runs]
    context: dict[str, Any] = {
        "title": title or " vs ".join(run.name for run in runs),
        "version": __version__,
        "runs": runs,
        "first": runs[0],
        "all_cases": _all_cases(runs),
        "synthetic": any(run.synthetic for run in runs),
        "display": display,
        "metrics": runs[0].metrics,
        "main_metric": MAIN_METRIC if MAIN_METRIC in runs[0].metrics else runs[0].metrics[0],
        "tables": writer.tables(),
        "cell_styles": {(run.name, m): _cell_styles(run, m) for run in runs for m in run.metrics},
        "heat_maps": writer.heat_maps(),
        "distributions": writer.distributions(),
        "contributions": {run.name: contributions(run, MAIN_METRIC) for run in runs},
        "contribution_figure": writer.contributions(),
        "gains": {run.name: _gains(run) for run in runs},
        "colours": modality_colours(runs[0].modalities),
        "grids": writer.grids(cases),
        "embeddings": writer.embeddings(),
        "curves": writer.curves(),
        "comparisons": [c for m in runs[0].metrics for c in compare_runs(runs, m)] if len(runs) > 1 else [],
        "unlike": unlike_references(runs),
        "protocols": sorted({str(run.summary["protocol"]) for run in runs}),
        "viewer_cases": [],
        "niivue": None,
        "script_data": _json({"gains": {run.name: _gain_data(run) for run in runs}}),
    }
    if viewer:
        kept = [(run, maps) for run, maps in zip(runs, cases, strict=True) if maps is not None]
        budget = max(_LEAST_BUDGET, VIEWER_BUDGET - _RUN_BYTES * len(runs)) // max(1, len(kept))
        packed = [viewer_case(maps, run.name, case_dice(run, maps), budget) for run, maps in kept]
        context["viewer_cases"] = share_images(packed)
        context["niivue"] = niivue_script() if kept else None
    context["viewer_data"] = _json(context["viewer_cases"])
    text = _environment().get_template("report.html").render(context)
    size = len(text.encode("utf-8"))
    if size > PAGE_LIMIT and viewer:  # many runs with large cases: the page works without the viewer
        return write_report(runs, output, title, viewer=False)
    write_text(page, text)
    return Report(page, folder, size)


class _Writer:
    """Saves figures and tables, and hands them to the page."""

    def __init__(self, runs: Sequence[EvaluationRun], folder: Path) -> None:
        self.runs = runs
        self.folder = folder

    def tables(self) -> list[tuple[MainTable, str, str]]:
        """(table, CSV, LaTeX) per metric."""
        found = []
        for metric in self.runs[0].metrics:
            table = main_table(self.runs, metric)
            texts = table_csv(table), table_latex(table, any(run.synthetic for run in self.runs))
            for ending, text in zip(("csv", "tex"), texts, strict=True):
                write_text(self.folder / f"table_{metric}.{ending}", text)
            found.append((table, *texts))
        return found

    def heat_maps(self) -> dict[tuple[str, str], FigureFiles]:
        return self._per_run_and_metric("heat_map", heat_map_figure, "Heat map of mean {metric} by subset and region")

    def distributions(self) -> dict[tuple[str, str], FigureFiles]:
        text = "Box plots of {metric} of every case by subset, one panel per region"
        return self._per_run_and_metric("distribution", distribution_figure, text)

    def contributions(self) -> FigureFiles | None:
        if not all(contributions(run, MAIN_METRIC) for run in self.runs):
            return None
        figure = contribution_figure(self.runs, MAIN_METRIC)
        return self._save(figure, "contribution", "Bars: Shapley contribution of each modality to each region")

    def grids(self, cases: Sequence[CaseMaps | None]) -> list[tuple[str, str, FigureFiles]]:
        """(run, case, figure) where label maps were kept."""
        found = []
        for run, maps in zip(self.runs, cases, strict=True):
            if maps is None:
                continue
            figure = kept_case_figure(run, maps)
            text = (
                f"Segmentations of case {maps.case_id} from every subset beside the ground truth, Dice (%) below each"
            )
            found.append((run.name, maps.case_id, self._save(figure, f"grid_{_slug(run)}", text)))
        return found

    def embeddings(self) -> list[tuple[str, list[Any], FigureFiles]]:
        """(run, gap per level, figure) where features were saved."""
        found = []
        for run in self.runs:
            path = run.log(FEATURES_FILE)
            if path is None:
                continue
            features: EncoderFeatures = load_features(path)
            figure = embedding_figure(features, run.name)
            text = f"t-SNE of encoder features of {run.name}, coloured by modality"
            found.append((run.name, level_gaps(features), self._save(figure, f"tsne_{_slug(run)}", text)))
        return found

    def curves(self) -> list[tuple[str, FigureFiles]]:
        """(heading, figure) of every training log."""
        found = []
        for run in self.runs:
            training, balance = run.log(TRAINING_FILE), run.log(BALANCE_FILE)
            if training is not None:
                figure = training_figure(training, f"{run.name}: training")
                text = f"Losses, learning rate and validation metrics of {run.name} over the epochs"
                found.append((f"{run.name}: training", self._save(figure, f"training_{_slug(run)}", text)))
            if balance is not None:
                figure = balance_figure(balance, f"{run.name}: balance of the modalities", run.modalities)
                text = f"Balancing quantities of {run.name} over the epochs, one line per modality"
                found.append((f"{run.name}: balance", self._save(figure, f"balance_{_slug(run)}", text)))
        return found

    def _per_run_and_metric(self, name: str, draw: Any, text: str) -> dict[tuple[str, str], FigureFiles]:
        found = {}
        for run in self.runs:
            for metric in run.metrics:
                description = f"{text.format(metric=display.metric_display(metric).title)}, run {run.name}"
                figure = draw(run, metric)
                found[run.name, metric] = self._save(figure, f"{name}_{metric}_{_slug(run)}", description)
        return found

    def _save(self, figure: Figure, name: str, description: str) -> FigureFiles:
        return save_figure(figure, self.folder, name, description)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medmap_monai.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg_uri"] = lambda figure: _data_uri(figure.svg.read_bytes(), "image/svg+xml")
    environment.filters["text_uri"] = lambda text, kind: _data_uri(text.encode("utf-8"), kind)
    environment.globals["asset"] = _asset
    environment.globals["counted"] = counted
    environment.globals["gain_colour"] = gain_colour
    environment.globals["largest_gain"] = _largest_gain
    return environment


def _asset(name: str) -> Markup:
    """A style sheet or script of the package, to be put into the page as it is."""
    return Markup((files("medmap_monai.report") / "templates" / name).read_text(encoding="utf-8"))


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element: no closing tag can be in it."""
    return Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def _slug(run: EvaluationRun) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in run.name)


def _all_cases(runs: Sequence[EvaluationRun]) -> str:
    """``n = 20 cases``, or the number of each run where they differ."""
    counts = [int(run.summary["n_cases"]) for run in runs]
    if len(set(counts)) == 1:
        return f"n = {counted(counts[0], 'case')}"
    return "n = " + ", ".join(f"{count} ({run.name})" for run, count in zip(runs, counts, strict=True)) + " cases"


def _cell_styles(run: EvaluationRun, metric: str) -> dict[tuple[str, str], tuple[str, str]]:
    return {key: cell_colour(share) for key, share in colour_shares(run, metric).items()}


def _gains(run: EvaluationRun) -> dict[str, dict[str, dict[str, float]]]:
    """Region -> subset -> missing modality -> expected gain; empty unless every subset was evaluated."""
    found = {}
    for region in run.regions:
        means = run.means(MAIN_METRIC, region)
        if len(means) < len(run.modalities.subsets()):
            return {}
        found[region] = {s: g for s, g in _paired(run, region).items() if g}
    return found


def _paired(run: EvaluationRun, region: str) -> dict[str, dict[str, float]]:
    """Subset -> missing modality -> gain over the cases that have both, in the order of the subsets."""
    block = run.table[(run.table["metric"] == MAIN_METRIC) & (run.table["region"] == region)]
    gains = paired_gains(block.pivot(index="case_id", columns="subset", values="value"), run.modalities)
    return {subset: gains[subset] for subset in run.subsets if subset in gains}


def _largest_gain(table: Mapping[str, Mapping[str, float]]) -> float:
    """The end of the colour scale of a table of gains; small gains never get strong colours."""
    return max([0.1, *(abs(gain) for gains in table.values() for gain in gains.values())])


def _gain_data(run: EvaluationRun) -> dict[str, Any]:
    """What the page needs to answer "what would another modality bring?"."""
    gains = {region: _paired(run, region) for region in run.regions}
    return {
        "modalities": [{"name": m, "label": display.modality_label(m)} for m in run.modalities],
        "regions": list(run.regions),
        "subsets": {
            subset: {
                region: {"mean": e["mean"], "ci": e["ci"], "n": e["n"], "gains": gains[region].get(subset, {})}
                for region in run.regions
                if (e := run.score(MAIN_METRIC, region, subset)) is not None
            }
            for subset in run.subsets
        },
    }
