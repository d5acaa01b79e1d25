from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from medmap_monai.engines.case_maps import read_case_maps, write_case_maps
from medmap_monai.metrics.paired_tests import holm, paired_test
from medmap_monai.report.comparison import compare_runs
from medmap_monai.report.kept_case import kept_case
from medmap_monai.report.page import write_report
from medmap_monai.report.runs import RunError, check_comparable, read_run, unlike_references


def test_a_run_is_read_with_its_failures_and_logs(run_folders, tmp_path):
    run = read_run(run_folders[0])
    assert (run.name, run.subsets, run.regions) == ("plain", ("flair", "t2", "flair+t2"), ("WT", "TC", "ET", "ETpp"))
    assert [f["case_id"] for f in run.failures] == ["BraTS20_Training_007"]
    assert run.log("training.csv") == run_folders[0] / "training.csv"
    assert read_run(run_folders[1]).log("training.csv") is None
    assert read_run(run_folders[1], logs=run_folders[0]).log("training.csv") == run_folders[0] / "training.csv"
    assert run.score("dice", "WT", "flair")["n"] == 6
    assert run.synthetic


def test_unfinished_and_unlike_runs_are_refused(run_folders, tmp_path):
    with pytest.raises(RunError, match="not a folder"):
        read_run(tmp_path / "absent")
    with pytest.raises(RunError, match=r"summary\.json is missing"):
        read_run(tmp_path)
    folder = shutil.copytree(run_folders[0], tmp_path / "copy")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "subsets": ["flair"]}))
    with pytest.raises(RunError, match="subsets are"):
        check_comparable([read_run(run_folders[0]), read_run(folder)])
    for key, name, value, told in (
        ("edge_cases", "hd95_empty", "1.0", r"edge cases: hd95_empty is diagonal and 1\.0"),
        ("regions", "TC", {"classes": [1], "minimum_voxels": 0}, "regions: TC is"),
    ):  # the same networks would differ by 100 mm, p < 0.001
        changed = {**summary, key: {**summary[key], name: value}}
        (folder / "summary.json").write_text(json.dumps(changed))
        with pytest.raises(RunError, match=told):
            check_comparable([read_run(run_folders[0]), read_run(folder)])
    with pytest.raises(RunError, match="different names"):
        check_comparable([read_run(run_folders[0]), read_run(run_folders[1], "plain")])
    (folder / "summary.json").write_text("{}")
    with pytest.raises(RunError, match="format 1"):
        read_run(folder)


def test_comparison_pairs_the_cases_means_over_subsets(run_folders):
    first, second = (read_run(folder) for folder in run_folders)
    found = compare_runs([first, second], "dice")
    assert [c.region for c in found] == ["WT", "TC", "ET", "ETpp"]
    means = []
    for run in (first, second):
        block = run.table.query("metric == 'dice' and region == 'WT'")
        means.append(block.groupby("case_id")["value"].mean().to_numpy())
    expected = paired_test(*means)
    assert found[0].test == expected
    assert found[0].test.n == 6
    assert found[0].test.difference == pytest.approx(float(np.mean(means[1] - means[0])))
    assert [c.adjusted for c in found] == holm([c.test.p for c in found])


def test_runs_without_a_common_case_have_no_test(run_folders):
    first, second = (read_run(folder) for folder in run_folders)
    second.table["case_id"] = "other_" + second.table["case_id"]
    assert [c.test for c in compare_runs([first, second], "dice")] == [None] * 4


def test_a_value_that_one_run_lacks_is_left_out_of_both(run_folders):
    """With hd95_empty nan a run that misses the hard subsets must not be compared by its easy ones alone."""
    first, second = (read_run(folder) for folder in run_folders)
    for run, values in ((first, (np.nan, np.nan, 5.0)), (second, (12.0, 14.0, 4.0))):
        rows = (run.table["metric"] == "hd95") & (run.table["region"] == "WT")
        run.table.loc[rows, "value"] = run.table.loc[rows, "subset"].map(dict(zip(run.subsets, values, strict=True)))
    test = compare_runs([first, second], "hd95")[0].test
    assert (test.n, test.difference) == (6, -1.0)  # where both have a value the second is better


def test_maps_of_cases_that_the_evaluation_does_not_hold_are_not_shown(run_folders, tmp_path):
    folder = shutil.copytree(run_folders[0], tmp_path / "copy")
    (kept,) = (folder / "maps").glob("*.npz")
    maps = replace(read_case_maps(kept), case_id="BraTS20_Training_099")  # of a fold that was evaluated before
    write_case_maps(maps, folder / "maps" / "BraTS20_Training_099.npz")
    run = read_run(folder)
    assert len(run.maps()) == 2
    assert kept_case(run, worst=True) is None
    assert kept_case(run).case_id == kept.stem


def test_other_studies_under_the_same_ids_are_told(run_folders, tmp_path):
    folder = shutil.copytree(run_folders[1], tmp_path / "copy")
    assert unlike_references([read_run(run_folders[0]), read_run(folder)]) == []
    for number in (1, 2):
        path = folder / "origins" / f"BraTS20_Training_00{number}.json"
        origin = json.loads(path.read_text())
        origin["files"]["label"]["sha256"] = "0" * 64
        path.write_text(json.dumps(origin))
    runs = [read_run(run_folders[0]), read_run(folder)]
    assert unlike_references(runs) == ["BraTS20_Training_001", "BraTS20_Training_002"]
    page = write_report(runs, tmp_path / "report.html", viewer=False).page.read_text(encoding="utf-8")
    assert "2 cases of the same id were compared with different label files" in page
