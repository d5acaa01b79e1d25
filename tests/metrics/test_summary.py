from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from medmap_monai.metrics.bootstrap import Bootstrap
from medmap_monai.metrics.reliability import expected_quality, read_reliability, write_reliability
from medmap_monai.metrics.summary import case_means, summarise
from medmap_monai.modalities import MYOPS, Modalities

TWO = Modalities(("a", "b"))


def _table(rows):
    frame = pd.DataFrame(rows, columns=["case_id", "subset_id", "subset", "region", "metric", "value", "empty"])
    return frame.assign(unit=np.where(frame["metric"] == "dice", "1", "mm"))


def test_means_spread_and_counts():
    rows = []
    for case, values in {"c1": (0.2, 0.4, 0.9), "c2": (0.4, 0.6, 0.7)}.items():
        for number, (name, value) in enumerate(zip(("a", "b", "a+b"), values, strict=True)):
            rows.append((case, number, name, "WT", "dice", value, "none"))
            rows.append((case, number, name, "WT", "hd95", float("nan") if case == "c2" else 3.0, "prediction"))
    summary = summarise(_table(rows), TWO, Bootstrap(resamples=100))
    first = summary["scores"][0]
    assert (first["subset"], first["region"], first["metric"], first["unit"]) == ("a", "WT", "dice", "1")
    assert (first["n"], first["excluded"], first["mean"], first["median"]) == (2, 0, 0.3, 0.3)
    assert first["sd"] == pytest.approx(np.std([0.2, 0.4], ddof=1), abs=1e-6)
    assert first["ci"] == [0.2, 0.4]
    distance = next(s for s in summary["scores"] if s["metric"] == "hd95")
    assert (distance["n"], distance["excluded"], distance["mean"], distance["sd"]) == (1, 1, 3.0, None)
    assert distance["empty"] == {"both": 0, "prediction": 2, "reference": 0}
    dice = next(a for a in summary["averages"] if a["metric"] == "dice")
    assert dice["mean"] == pytest.approx((0.3 + 0.5 + 0.8) / 3, abs=1e-6)
    assert dice["n"] == 2
    # Shapley by hand: a = ((0.3 - 0) + (0.8 - 0.5)) / 2, b = ((0.5 - 0) + (0.8 - 0.3)) / 2
    assert summary["contribution"]["dice"]["WT"] == pytest.approx({"a": 0.3, "b": 0.5})
    json.dumps(summary, allow_nan=False)


def test_incomplete_cases_do_not_enter_the_case_average():
    rows = [("c1", 0, "a", "WT", "dice", 0.5, "none"), ("c1", 1, "b", "WT", "dice", 0.7, "none")]
    rows.append(("c2", 0, "a", "WT", "dice", 0.1, "none"))
    table = _table(rows)
    assert case_means(table, 2).to_dict() == {"c1": pytest.approx(0.6)}
    summary = summarise(table, TWO, Bootstrap(resamples=10))
    assert [s["n"] for s in summary["scores"]] == [2, 1]
    assert summary["averages"][0]["n"] == 1
    assert summary["contribution"]["dice"] == {}  # a+b was not evaluated


def test_what_a_modality_brings_is_measured_on_the_same_cases(tmp_path):
    """Studies that lack a sequence may be the harder ones: the difference of two means is not what it brings."""
    rows = []
    for number in range(8):
        easy = number < 4  # has both; b adds 0.02 in each of them
        values = {"a": 0.88, "b": 0.5, "a+b": 0.9} if easy else {"a": 0.4}
        rows += [(f"c{number}", ("a", "b", "a+b").index(s), s, "WT", "dice", v, "none") for s, v in values.items()]
    summary = summarise(_table(rows), TWO, Bootstrap(resamples=10))
    assert {s["subset"]: s["mean"] for s in summary["scores"]} == {"a": 0.64, "b": 0.5, "a+b": 0.9}
    assert summary["gains"]["dice"]["WT"] == {"a": {"b": 0.02}, "b": {"a": 0.4}, "a+b": {}}
    assert summary["contribution"]["dice"]["WT"] == pytest.approx({"a": 0.64, "b": 0.26})  # over the four
    path = tmp_path / "reliability.json"
    write_reliability({**summary, "modalities": list(TWO), "n_cases": 8}, path)
    (warning,) = expected_quality(read_reliability(path), "a").warnings
    assert warning.endswith("expected Dice 0.64 (n = 8), 0.90 with a+b; b would be expected to bring +0.02")
    old = read_reliability(path)
    for cells in old["subsets"].values():
        del cells["WT"]["gains"]  # a file of an earlier version
    assert "would be expected" not in expected_quality(old, "a").warnings[0]


def _summary():
    means = {"bssfp": 0.60, "lge": 0.80, "t2": 0.45, "bssfp+lge": 0.82, "bssfp+t2": 0.7, "lge+t2": 0.84}
    means["bssfp+lge+t2"] = 0.85
    scores = [
        {"subset": s, "region": "scar", "metric": "dice", "mean": m, "ci": [m - 0.1, m + 0.1], "n": 5}
        for s, m in means.items()
    ]
    return {"scores": scores, "modalities": list(MYOPS), "protocol": "clinical", "data": "phantom", "n_cases": 5}


def test_expected_quality_warns_by_the_numbers(tmp_path):
    path = tmp_path / "reliability.json"
    write_reliability(_summary(), path)
    reliability = read_reliability(path)
    good = expected_quality(reliability, "lge")
    assert good.warnings == []
    assert good.values["scar"].mean == 0.8
    assert good.values["scar"].reliable
    assert good.source == "5 cases of phantom, protocol clinical"
    poor = expected_quality(reliability, ["bssfp"])  # 0.60 < 0.75 * 0.85
    assert not poor.values["scar"].reliable
    assert poor.warnings == [
        "scar is unreliable with bssfp: expected Dice 0.60 (n = 5), 0.85 with bssfp+lge+t2; "
        "lge would be expected to bring +0.22"
    ]
    assert "below" not in expected_quality(reliability, "t2+bssfp").warnings  # order of names is free
    assert expected_quality(reliability, "bssfp+t2").values["scar"].reliable


def test_expected_quality_of_what_was_not_evaluated(tmp_path):
    path = tmp_path / "reliability.json"
    summary = _summary()
    summary["scores"] = [s for s in summary["scores"] if s["subset"] != "t2"]
    write_reliability(summary, path)
    found = expected_quality(read_reliability(path), "t2")
    assert found.values == {}
    assert "unknown" in found.warnings[0]
    with pytest.raises(ValueError, match="flair"):
        expected_quality(read_reliability(path), "flair")
    with pytest.raises(ValueError, match="empty"):
        expected_quality(read_reliability(path), [])
    with pytest.raises(ValueError, match="no Dice"):
        write_reliability({"scores": []}, path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="reliability file"):
        read_reliability(path)
