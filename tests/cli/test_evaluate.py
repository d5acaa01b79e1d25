from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from medmap_monai.cli.evaluate import evaluate
from tests.engines.test_subset_evaluator import write_study

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_unet_dropout"
SMALL = {
    "network_def#channels": [4, 8],
    "network_def#deep_supervision": 0,
    "roi_size": [16, 16, 16],
    "sw_batch_size": 4,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The bundle with a tiny network and random weights."""
    root = tmp_path_factory.mktemp("bundle")
    shutil.copytree(BUNDLE / "configs", root / "configs")
    (root / "configs" / "small.json").write_text(json.dumps(SMALL))
    parser = ConfigParser()
    parser.read_config([str(root / "configs" / "evaluate.json"), str(root / "configs" / "small.json")])
    torch.manual_seed(0)
    (root / "models").mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), root / "models" / "model.pt")
    return root


def run(*arguments):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_evaluate_merges_shards_and_reports_a_bad_study(bundle, tmp_path):
    cohort = tmp_path / "cohort"
    for number in (1, 2):
        write_study(cohort, number)
    common = [cohort, "--bundle", bundle, "--overlay", "small", "--device", "cpu", "--subsets", "t2, flair+t1ce"]
    whole = run(*common, "--output", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert "mean Dice over 2 subsets" in whole.output
    table = pd.read_csv(tmp_path / "whole" / "metrics.csv")
    assert set(table["subset"]) == {"t2", "flair+t1ce"}
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["checkpoint"]["file"] == "model.pt"

    shares = [*common, "--output", tmp_path / "shards", "--num-shards", 2]
    first = run(*shares, "--shard", 1)
    assert first.exit_code == 0, first.output
    assert "this share is done" in first.output
    assert run(*common, "--output", tmp_path / "shards", "--merge").exit_code == 1
    assert run(*shares, "--shard", 0).exit_code == 0
    assert run(*common, "--output", tmp_path / "shards", "--merge").exit_code == 0
    for name in ("metrics.csv", "summary.json"):
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    bad = write_study(cohort, 3, label=False)
    result = run(*common, "--output", tmp_path / "whole")
    assert result.exit_code == 1
    assert bad in result.output
    assert pd.read_csv(tmp_path / "whole" / "metrics.csv")["case_id"].nunique() == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--num-shards", 2], 2, "together"),
        (["--protocol", "published"], 1, "clinical"),
        (["--hd95-empty", "0"], 1, "diagonal"),
        (["--set", "roi_size"], 1, "key=value"),
        (["--overlay", "absent"], 1, "small"),
    ],
)
def test_bad_arguments_are_named(bundle, tmp_path, arguments, code, message):
    result = run(tmp_path, "--bundle", bundle, "--output", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.output
