"""The method comparison: order of the runs, a real run of the smallest plan, and the tables against sums by hand."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from monai.bundle import ConfigParser

from medmap_monai.methods.base import Method
from medmap_monai.recipes.comparison_plan import load_plan, resolved
from medmap_monai.recipes.comparison_records import read_records, read_runs
from medmap_monai.synthesis.cohort import write_synthetic_cohort
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy
from medmap_monai.utils.bundle_workflow import open_workflow
from medmap_monai.utils.synthetic import MARKER_FILE

PIPELINES = Path(__file__).parents[2] / "pipelines"
CLASSES = {"WT": [1, 2, 3], "ET": [3], "ETpp": [3]}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PIPELINES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


compare = load("compare_methods")
tables = load("compare_methods_table")


def plan(name: str = "compare_methods") -> dict[str, Any]:
    return load_plan(PIPELINES / f"{name}.json")


def write_run(folder: Path, variant: str, seed: int, dice: dict[tuple[str, str, str], float]) -> None:
    """Results of one run: (case, subset, region) -> Dice, as ``medmap evaluate`` writes them."""
    target = folder / "runs" / variant / f"seed{seed}" / "evaluation"
    target.mkdir(parents=True)
    regions = {n: {"classes": c, "minimum_voxels": 10 if n == "ETpp" else 0} for n, c in CLASSES.items()}
    (target / "summary.json").write_text(json.dumps({"regions": regions}))
    lines = ["case_id,present,subset_id,subset,modalities,region,metric,value,unit,empty"]
    for (case, subset, region), value in dice.items():
        size = subset.count("+") + 1
        lines.append(f"{case},t1+t2,{size},{subset},{size},{region},dice,{value},1,none")
        lines.append(f"{case},t1+t2,{size},{subset},{size},{region},hd95,5.0,mm,none")
    (target / "metrics.csv").write_text("\n".join(lines) + "\n")


def small_plan() -> dict[str, Any]:
    return {
        "results": "phantom",
        "protocol": {"data_name": "phantom cohort"},
        "groups": {"all": {}, "1 modality": {"at_most": 1}, "complete": {"at_least": 2}, "T2": {"of": ["t2"]}},
        "variants": {"a": {"title": "A"}, "b": {"title": "B"}},
        "suites": {"both": {"title": "two methods", "variants": ["a", "b"], "pairs": [["a", "b"]]}},
    }


@pytest.fixture
def results(tmp_path: Path) -> Any:
    for seed in (0, 1):
        for variant, gain in (("a", 0.0), ("b", 0.1 + 0.1 * seed)):
            dice = {}
            for number, case in enumerate(("c1", "c2")):
                dice[case, "t2", "WT"] = 0.4 + 0.1 * number + gain
                dice[case, "t2", "ET"] = 0.2 + gain
                dice[case, "t1+t2", "WT"] = 0.6
                dice[case, "t1+t2", "ET"] = 0.5 + 0.1 * number
                dice[case, "t1+t2", "ETpp"] = 0.0
            write_run(tmp_path, variant, seed, dice)
    return tables.Results(read_runs(tmp_path), small_plan())


def test_runs_of_other_test_cases_are_refused(tmp_path: Path) -> None:
    """Pairing by case would quietly use those few that both have."""
    for variant, cases in (("a", ("c1", "c2", "c3")), ("b", ("c1", "c2", "c3")), ("c", ("c3", "c4"))):
        write_run(tmp_path, variant, 0, {(case, "t2", "WT"): 0.5 for case in cases})
    told = r"c seed 0 was scored on other test cases than most runs \(1 of its 2 are among their 3\)"
    with pytest.raises(ValueError, match=told):
        tables.Results(read_runs(tmp_path), small_plan())


PLANS = ["compare_methods", "compare_realistic", "compare_validation"]


@pytest.mark.parametrize("name", PLANS)
def test_every_variant_of_the_plan_is_a_bundle_and_every_suite_names_variants(name: str) -> None:
    content = plan(name)
    for variant in [resolved(content["variants"], name) for name in content["variants"]]:
        assert (PIPELINES.parent / "bundles" / variant["bundle"] / "configs" / "phantom.json").is_file()
        assert variant["title"]
    for suite in content["suites"].values():
        named = {*suite["variants"], *(name for pair in suite["pairs"] for name in pair)}
        assert named <= set(content["variants"])


def test_every_variant_of_the_realistic_suites_is_a_method(tmp_path: Path) -> None:
    """Its settings, merged over the bundle as a run does it, make the method; its data are not opened."""
    content = plan("compare_realistic")
    named = {name for suite in content["suites"].values() for name in suite["variants"]}
    modalities = ["flair", "t1ce", "t1", "t2"]
    counts = {
        "_target_": "medmap_monai.methods.case_counts.CaseCounts",
        "modalities": modalities,
        "total": 5,
        "per_modality": [3, 3, 4, 2],
    }
    for name in sorted(named):
        variant = resolved(content["variants"], name)
        bundle = PIPELINES.parent / "bundles" / variant["bundle"]
        overrides = {**content["protocol"]["overrides"], **variant["overrides"], "cases": counts}
        settings = tmp_path / f"{name}.json"
        settings.write_text(json.dumps(overrides))
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / f) for f in ("train.json", "phantom.json")] + [str(settings)])
        if "cases" in (inner := overrides.get("method#method", {})):
            parser.set(counts, "method#method#cases")
            assert inner["_target_"].endswith("Passion")
        assert isinstance(parser.get_parsed_content("method"), Method), name


def test_settings_are_chosen_on_other_studies_than_those_that_judge_them() -> None:
    """The validation set shares the trainings of the realistic plan, and no label map, seed or prior with its test."""
    chosen_on, judged_on = plan("compare_validation")["protocol"], plan("compare_realistic")["protocol"]
    assert chosen_on["overrides"] == judged_on["overrides"]
    first, last = judged_on["test_anatomies"]
    assert not set(range(first, last + 1)) & set(range(*chosen_on["test_anatomies"]))
    assert chosen_on["test_anatomies"][1] < first
    assert chosen_on["test_priors"] != judged_on["test_priors"]
    assert chosen_on["test_seed"] not in (judged_on["test_seed"], judged_on["train_seed"])


@pytest.mark.parametrize(("stages", "made"), [(["score"], ["test"]), (["train"], ["split.csv", "train"])])
def test_a_stage_makes_only_the_cohort_that_it_needs(stages: list[str], made: list[str], tmp_path: Path) -> None:
    content = plan()
    content["protocol"].update(train_cases=15, val_cases=1, test_cases=2, shape=[16, 16, 16])
    compare.Comparison(tmp_path, content).prepare(stages)
    assert sorted(path.name for path in tmp_path.iterdir()) == made


def test_runs_go_seed_by_seed_and_a_shared_variant_once() -> None:
    jobs = list(compare.chosen(plan(), ["passion", "idt"], [1, 0]))
    variants = plan()["suites"]["passion"]["variants"]
    assert jobs == [(v, 1) for v in variants] + [(v, 0) for v in variants]
    with pytest.raises(SystemExit, match="unknown variants"):
        list(compare.chosen(plan(), ["nothing"], [0]))
    ambiguous = plan()
    ambiguous["suites"]["idt"] = ambiguous["suites"]["passion"]
    with pytest.raises(SystemExit, match="a variant and a suite"):
        list(compare.chosen(ambiguous, ["idt"], [0]))


def test_what_describes_the_network_goes_on_to_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs" / "evaluate.json"
    config.write_text(json.dumps({"network_def": {}, "anchor": "none", "seed": 0, "dataset_dir": "."}))
    given = {"network_def#width": [8, 16], "anchor": "fixed", "epochs": 3, "seed": 5, "dataset_dir": "x"}
    written = compare.write_overlay(tmp_path, "evaluate", tmp_path / "settings.json", given)
    assert json.loads(Path(written).read_text()) == {"network_def#width": [8, 16], "anchor": "fixed"}


def test_a_run_is_not_scored_as_something_that_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    trained = {"mode": "idt", "epochs": 12, "device": "cuda", "dataset_dir": "there"}
    compare.check_settings(path, trained)  # nothing is there yet
    path.write_text(json.dumps(trained))
    compare.check_settings(path, {**trained, "device": "cpu", "dataset_dir": "here"})  # scored elsewhere
    with pytest.raises(compare.CommandError, match=r"trained with other settings \(epochs, weight\)"):
        compare.check_settings(path, {**trained, "epochs": 24, "weight": 0.1})


@pytest.mark.parametrize("name", PLANS)
def test_the_network_that_is_scored_is_the_one_that_was_trained(name: str, tmp_path: Path) -> None:
    """Of every variant: the weights of its training fit the network of its evaluation, and of its features."""
    content = plan(name)
    seen = set()
    for variant in {v for suite in content["suites"].values() for v in suite["variants"]}:
        settings = resolved(content["variants"], variant)
        bundle = PIPELINES.parent / "bundles" / settings["bundle"]
        overrides = {**content["protocol"]["overrides"], **settings.get("overrides", {})}
        scored = json.dumps([settings["bundle"], {k: v for k, v in overrides.items() if k.startswith("network_def")}])
        if (key := (scored, overrides.get("anchor"))) in seen:
            continue
        seen.add(key)
        trained = ConfigParser()
        settings_file = tmp_path / "settings.json"
        settings_file.write_text(json.dumps(overrides))
        trained.read_config(
            [str(bundle / "configs" / f) for f in ("train.json", "phantom.json")] + [str(settings_file)]
        )
        weights = trained.get_parsed_content("network_def").state_dict()
        overlay = compare.write_overlay(bundle, "evaluate", tmp_path / "overlay.json", overrides)
        parser = open_workflow(bundle, "evaluate", ["phantom", overlay], {"dataset_dir": str(tmp_path)}).parser
        parser.get_parsed_content("network_def").load_state_dict(weights)


def test_a_variant_takes_over_from_the_one_that_it_is_like() -> None:
    variants = {
        "a": {
            "bundle": "x",
            "title": "A",
            "overrides": {"net": {"width": 2, "depth": 1}, "mode": "pdt"},
            "features": {},
        },
        "b": {"like": "a", "title": "B", "overrides": {"net": {"width": 4}}},
        "c": {"like": "b", "title": "C", "overrides": {"mode": "idt"}},
    }
    expected = {"net": {"width": 4, "depth": 1}, "mode": "idt"}
    assert resolved(variants, "c") == {"bundle": "x", "title": "C", "overrides": expected, "features": {}}
    assert variants["a"]["overrides"]["net"] == {"width": 2, "depth": 1}


def test_means_by_hand(results: Any) -> None:
    assert results.regions == ["WT", "ET"]  # never the post-processed one
    groups = results.plan["groups"]
    assert results.means("a", groups["all"], ["WT"]) == pytest.approx([52.5, 52.5])
    assert results.means("b", groups["1 modality"], ["WT", "ET"]) == pytest.approx([42.5, 52.5])
    assert results.means("b", groups["T2"], ["ET"]) == pytest.approx([30.0, 40.0])
    assert results.means("a", groups["complete"], ["ET"]) == pytest.approx([55.0, 55.0])


def test_differences_are_paired_by_seed_and_case(results: Any) -> None:
    groups = results.plan["groups"]
    found = results.difference("a", "b", groups["1 modality"])
    assert found.by_seed == pytest.approx([10.0, 20.0])
    assert found.mean == pytest.approx(15.0)
    assert found.interval == pytest.approx((15.0, 15.0))  # both cases gain the same
    assert results.difference("b", "a", groups["complete"]).mean == pytest.approx(0.0)


def test_only_shared_seeds_are_compared(results: Any, tmp_path: Path) -> None:
    write_run(tmp_path, "a", 2, {("c1", "t2", "WT"): 0.9, ("c2", "t2", "WT"): 0.9})
    more = tables.Results(read_runs(tmp_path), small_plan())
    assert more.seeds("a", "b") == [0, 1]
    assert len(more.difference("a", "b", {}).by_seed) == 2


def test_the_page_keeps_its_words(results: Any, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results" / "page.md"
    page.parent.mkdir(parents=True)
    words = "Before.\n\n<!-- {} -->\nold\n<!-- end -->\n\nAfter.\n"
    page.write_text("".join(words.format(f"{kind}: both") for kind in ("scores", "differences", "subsets", "figure")))
    assert tables.fill(page, results) == 4
    text = page.read_text()
    assert text.count("Before.") == text.count("After.") == 4
    assert "old" not in text
    assert "| A | 2 | 52.5 ± 0.0 | 37.5 ± 0.0 |" in text
    assert "| B minus A | **+7.5** [+7.5, +7.5]<br>+5.0, +10.0 |" in text
    assert "| t2 | 45 / 20 | 60 / 35 |" in text
    picture = tmp_path / "docs" / "images" / "phantom_both.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    tables.fill(page, results)
    assert page.read_text() == text  # again, the same
    page.write_text(words.format("scores: both"))
    with pytest.raises(ValueError, match="unknown suites"):
        tables.fill(page, results, ["neither"])
    results.plan["suites"]["second"] = results.plan["suites"]["both"]
    assert tables.fill(page, results, ["second"]) == 0
    assert "old" in page.read_text()  # a block of another suite stays
    page.write_text("<!-- scores: other -->\n<!-- end -->")
    with pytest.raises(ValueError, match="must name one of"):
        tables.fill(page, results)


def test_runs_stay_in_the_records_when_they_are_gone(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "docs" / "results" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text("<!-- scores: both -->\n<!-- end -->\n")
    (tmp_path / "plan.json").write_text(json.dumps(small_plan()))
    arguments = ["table", "--plan", str(tmp_path / "plan.json"), "--page", str(page), "--records", str(tmp_path / "r")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--runs", str(tmp_path)])
    tables.main()
    text = page.read_text()
    assert "| A | 2 |" in text
    monkeypatch.setattr(sys, "argv", [*arguments, "--runs", str(tmp_path / "empty")])
    tables.main()
    assert page.read_text() == text
    assert len(read_records(tmp_path / "r").scores) == 8
    monkeypatch.setattr(sys, "argv", [*arguments[:-1], str(tmp_path / "no"), "--runs", str(tmp_path / "empty")])
    with pytest.raises(SystemExit, match="no finished run"):
        tables.main()


def test_a_run_is_made_once_and_an_interrupted_comparison_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest real plan: one epoch, tiny volumes; trained, measured and scored by the real commands."""
    content = plan()
    protocol = content["protocol"]
    protocol.update(train_cases=15, val_cases=1, test_cases=1, gap_cases=1, shape=[16, 16, 16])
    narrow = {"network_def#channels": [2, 4], "network_def#deep_supervision": 0}
    protocol["overrides"] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.001, "roi_size": [16, 16, 16]}
    content["variants"]["pdt"]["overrides"].update(narrow)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    arguments = ["compare", "--output", str(tmp_path / "runs"), "--plan", str(tmp_path / "plan.json")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "pdt", "--seeds", "3"])
    compare.main()
    run = tmp_path / "runs" / "runs" / "pdt" / "seed3"
    made = {name: (run / name).stat().st_mtime_ns for name in ("features.npz", "models/model.pt", "settings.json")}
    compare.main()
    assert {name: (run / name).stat().st_mtime_ns for name in made} == made
    (run / "evaluation" / "summary.json").unlink()  # as if stopped during the evaluation
    (run / "evaluation" / "metrics.csv").unlink()
    before = (run / "features.npz").read_bytes()
    compare.main()
    assert (run / "evaluation" / "summary.json").is_file()
    assert (run / "features.npz").read_bytes() == before
    found = tables.Results(read_runs(tmp_path / "runs"), content)
    assert found.seeds("pdt") == [3]
    suite = {"variants": ["pdt"]}
    assert len(tables.gap(found, suite).splitlines()) == 4
    assert len(tables.gap(found, {**suite, "gap_levels": ["level1"]}).splitlines()) == 3


def test_the_realistic_protocol_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest real run on synthetic studies: other label maps in training and test, other priors, HD95 kept."""
    content = plan("compare_realistic")
    content["protocol"].update(train_cases=15, val_cases=1, test_cases=1, spacing=5.0)
    content["protocol"].update(train_anatomies=[1, 2], test_anatomies=[3, 3])
    narrow = {"network_def#channels": [2, 4], "network_def#deep_supervision": 0}
    content["protocol"]["overrides"] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.001, "roi_size": [16, 16, 16]}
    content["variants"]["idt"]["overrides"].update(narrow)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    arguments = ["compare", "--output", str(tmp_path / "runs"), "--plan", str(tmp_path / "plan.json"), "--only", "idt"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--seeds", "0"])
    with pytest.raises(SystemExit, match="--anatomy"):
        compare.main()
    anatomy = ensure_phantom_anatomy(tmp_path / "anatomy")
    arguments += ["--seeds", "0", "--anatomy", anatomy]
    monkeypatch.setattr(sys, "argv", arguments)
    compare.main()
    beside = write_synthetic_cohort(tmp_path / "beside", anatomy, 1, 6.0, first_case=40)  # on a grid of its own
    monkeypatch.setattr(sys, "argv", [*arguments, "--example", str(beside)])
    compare.main()  # the runs are there already; only the example is scored
    marks = [json.loads((tmp_path / "runs" / name / MARKER_FILE).read_text()) for name in ("train", "test")]
    assert [mark["anatomies"] for mark in marks] == ["1-2", "3-3"]
    assert [mark["priors"] for mark in marks] == ["default", "shifted"]
    found = tables.Results(read_runs(tmp_path / "runs"), content)
    assert found.seeds("idt") == [0]
    assert "| IDT | 1 |" in tables.distances(found, content["suites"]["imbalanced"])
    assert found.distances["modalities"].max() == 4
    assert (found.distances["hd95"] >= 0).all()
    assert len(found.examples) == 45  # subsets x regions of one study
    shown = tables.example(found, content["suites"]["imbalanced"]).splitlines()
    assert shown[0].startswith("| example: BraTS20_Training_041 | seeds | WT, all |")
    assert shown[2].startswith("| IDT | 1 |")


PUBLISHED = [(name, page) for name in PLANS for page in sorted(tables.RESULTS.glob(f"{plan(name)['results']}*.md"))]


@pytest.mark.parametrize(("name", "page"), PUBLISHED, ids=[page.stem for _, page in PUBLISHED])
def test_the_published_tables_are_those_of_the_records(name: str, page: Path) -> None:
    found = tables.Results(read_records(tables.RESULTS / f"{plan(name)['results']}_records"), plan(name))
    blocks = re.findall(r"<!-- (\w+): (\w+) -->\n(.*?)<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks or page.stem == "phantom-medmap"  # words alone
    for kind, suite, text in blocks:
        if kind != "figure":
            assert text == tables.TABLES[kind](found, found.plan["suites"][suite]), f"{kind}: {suite}"


def test_no_aligned_run_rests_on_a_default_of_its_bundle() -> None:
    """Recorded numbers keep their meaning when a bundle's default changes."""
    variants = plan()["variants"]
    settings = {name: resolved(variants, name) for name in variants}
    aligned = {
        name: found["overrides"]
        for name, found in settings.items()
        if "medmap" in found["bundle"] and found["overrides"]["anchor"] != "none"
    }
    assert len(aligned) > 10
    for name, overrides in aligned.items():
        wanted = {"align_weight"} if name.startswith("kd") else {"align_weight", "aligned_levels", "training_source"}
        assert wanted <= set(overrides), name
