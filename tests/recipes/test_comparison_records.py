"""Records of a comparison: written and read back, newer runs first, the same bytes for the same content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medmap_monai.engines.encoder_features import EncoderFeatures, gap_per_level, save_features
from medmap_monai.recipes.comparison_records import (
    DISTANCES_FILE,
    EXAMPLE_FILE,
    GAP_FILE,
    SCORES_FILE,
    ComparisonRecords,
    read_records,
    read_runs,
    write_records,
)


def records(variant: str, seed: int, dice: float) -> ComparisonRecords:
    keys = {"variant": [variant] * 2, "seed": [seed] * 2}
    scores = pd.DataFrame({**keys, "case_id": ["c1", "c2"], "0:t2:WT": [dice, 50.25], "3:t1+t2:WT": [70.0, 80.0]})
    gap = pd.DataFrame({**keys, "level": ["level0", "level1"], "cka": [0.5, 0.25]})
    distances = pd.DataFrame({**keys, "case_id": ["c1", "c2"], "0:t2:WT": [9.5, 3.0], "3:t1+t2:WT": [1.0, 2.5]})
    example = pd.DataFrame({"variant": [variant], "seed": [seed], "case_id": ["real"], "0:t2:WT": [dice + 1]})
    return ComparisonRecords(scores, gap, distances, example)


def test_written_and_read_back_with_the_same_bytes(tmp_path: Path) -> None:
    written = records("a", 1, 12.5)
    write_records(written, tmp_path / "one")
    found = read_records(tmp_path / "one")
    pd.testing.assert_frame_equal(found.scores, written.scores)
    pd.testing.assert_frame_equal(found.gap, written.gap)
    pd.testing.assert_frame_equal(found.distances, written.distances)
    assert found.hd95().set_index(["case_id", "subset"])["hd95"].to_dict()["c2", "t1+t2"] == 2.5
    write_records(found, tmp_path / "two")
    assert found.examples()[["case_id", "subset", "dice"]].to_numpy().tolist() == [["real", "t2", 13.5]]
    for name in (SCORES_FILE, GAP_FILE, DISTANCES_FILE, EXAMPLE_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_newer_runs_replace_the_same_run_and_no_other() -> None:
    old = records("b", 0, 1.0).updated(records("a", 0, 2.0)).updated(records("a", 1, 3.0))
    new = old.updated(records("a", 0, 4.0))
    first = new.scores[new.scores["case_id"] == "c1"]
    assert list(zip(first["variant"], first["seed"], first["0:t2:WT"], strict=True)) == [
        ("a", 0, 4.0),
        ("a", 1, 3.0),
        ("b", 0, 1.0),
    ]
    assert len(new.gap) == 6


def test_nothing_is_empty_and_adds_nothing(tmp_path: Path) -> None:
    nothing = read_records(tmp_path).updated(read_runs(tmp_path))
    assert nothing.scores.empty
    assert nothing.gap.empty
    one = records("a", 0, 5.0)
    pd.testing.assert_frame_equal(nothing.updated(one).scores, one.scores)
    pd.testing.assert_frame_equal(one.updated(nothing).scores, one.scores)


def test_the_long_table_names_subset_and_region() -> None:
    long = records("a", 0, 12.5).dice().sort_values(["case_id", "subset_id"])
    assert list(long["subset"]) == ["t2", "t1+t2"] * 2
    assert list(long["modalities"]) == [1, 2] * 2
    assert list(long["subset_id"]) == [0, 3] * 2
    assert set(long["region"]) == {"WT"}
    assert list(long["dice"]) == [12.5, 70.0, 50.25, 80.0]


def test_a_run_is_read_with_its_gap(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a" / "seed2"
    (run / "evaluation").mkdir(parents=True)
    regions = '{"WT": {"minimum_voxels": 0}, "ETpp": {"minimum_voxels": 10}}'
    (run / "evaluation" / "summary.json").write_text('{"regions": ' + regions + "}")
    header = "case_id,present,subset_id,subset,modalities,region,metric,value,unit,empty\n"
    rows = [
        "c1,t1+t2,14,t1+t2,2,WT,dice,0.54321,1,none",
        "c1,t1+t2,14,t1+t2,2,WT,hd95,2.0,mm,none",
        "c1,t1+t2,14,t1+t2,2,ETpp,dice,0.1,1,none",
    ]
    (run / "evaluation" / "metrics.csv").write_text(header + "\n".join(rows) + "\n")
    values = np.random.default_rng(0).normal(size=(2, 30, 3)).astype(np.float32)
    features = EncoderFeatures(("t1", "t2"), {"level0": values}, {"level0": np.array(["c1"] * 30)})
    save_features(features, run / "features.npz")
    found = read_runs(tmp_path)
    assert found.scores.to_dict("records") == [{"variant": "a", "seed": 2, "case_id": "c1", "14:t1+t2:WT": 54.32}]
    (level,) = gap_per_level(features)
    row = found.gap.iloc[0]
    assert (row["variant"], row["seed"], row["level"]) == ("a", 2, "level0")
    assert row["cka"] == round(level.gap.cka, 4)
    assert row["voxel_distance"] == round(level.gap.voxel_distance, 4)
    assert row["effective_rank"] == round(level.effective_rank, 4)
    assert row["spatial_sd"] == round(level.spatial_sd, 4)
