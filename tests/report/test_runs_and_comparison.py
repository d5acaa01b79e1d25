from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from medmap_monai.metrics.paired_tests import holm, paired_test
from medmap_monai.report.comparison import compare_runs
from medmap_monai.report.runs import RunError, check_comparable, read_run


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
