"""Federated learning with MONAI's client: rounds on separate sites whose weights are averaged."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from medmap_monai.data.phantom import write_cohort
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy
from medmap_monai.utils.bundle_workflow import open_workflow
from tests.bundles import starter_workflows
from tests.zoo.conftest import BUNDLES, copy_bundle

Weights = dict[str, Tensor]
CONFIGS = ["configs/train.json", "configs/phantom.json"]
SHAPE = [16, 16, 16]
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config")
# a network and a schedule that take a second per round; `epochs` only shapes the learning rate
SMALL: dict[str, Any] = {
    "device": "cpu",
    "epochs": 2,
    "roi_size": SHAPE,
    "batch_size": 1,
    "val_interval": 2,
    "val_fraction": 0.34,
    "test_fraction": 0.0,
    "network_def#channels": [4, 8, 16],
    "network_def#deep_supervision": 1,
}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One phantom cohort in two halves."""
    folder = tmp_path_factory.mktemp("sites")
    return [write_cohort(folder / f"site{i}", "brats2020", 3, SHAPE, first_case=3 * i) for i in range(2)]


def settings(folder: Path, data: Path) -> dict[str, Any]:
    """What each site sets: where its data are, and where its own files go."""
    return {
        **SMALL,
        "dataset_dir": str(data),
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "runs"),
    }


def client(bundle: Path, folder: Path, data: Path, send_weight_diff: bool = False) -> MonaiAlgo:
    algo = MonaiAlgo(
        bundle_root=str(bundle),
        local_epochs=1,
        send_weight_diff=send_weight_diff,
        config_train_filename=CONFIGS,
        train_kwargs=settings(folder, data),
        config_evaluate_filename=CONFIGS,  # the validation of the training
        eval_kwargs=settings(folder, data),
    )
    algo.initialize({ExtraItems.CLIENT_NAME: data.name})
    return algo


def average(all_weights: list[Weights]) -> Weights:
    """The mean of each tensor over sites, in its own type."""
    return {
        name: torch.stack([weights[name].double() for weights in all_weights]).mean(dim=0).to(first.dtype)
        for name, first in all_weights[0].items()
    }


def message(weights: Weights) -> ExchangeObject:
    return ExchangeObject(weights={n: w.clone() for n, w in weights.items()}, weight_type=WeightType.WEIGHTS)


def differ(a: Weights, b: Weights) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("name", "send_weight_diff"), [("brats_unet_dropout", False), ("brats_passion_unet", True)])
def test_two_sites_train_two_rounds(name: str, send_weight_diff: bool, sites: list[Path], tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path, name)
    clients = [client(bundle, tmp_path / site.name, site, send_weight_diff) for site in sites]
    started: list[Weights] = []
    for algo in clients:
        assert algo.trainer is not None
        algo.trainer.add_event_handler(
            Events.STARTED,
            lambda engine: started.append({n: w.clone() for n, w in engine.network.state_dict().items()}),
        )
    weights: Weights = {n: w.clone() for n, w in clients[0].trainer.network.state_dict().items()}  # type: ignore[union-attr]
    for number in (1, 2):
        returned = []
        for algo in clients:
            algo.train(message(weights))
            answer = algo.get_weights()
            assert not differ(started[-1], weights)  # the round began with what the server sent
            assert answer.weight_type == (WeightType.WEIGHT_DIFF if send_weight_diff else WeightType.WEIGHTS)
            assert answer.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 2
            assert algo.trainer is not None
            assert algo.trainer.state.epoch == number
            base = weights if send_weight_diff else {n: torch.zeros_like(w) for n, w in weights.items()}
            returned.append({n: base[n] + w for n, w in answer.weights.items()})
        assert all(differ(w, weights) for w in returned)
        assert differ(returned[0], returned[1])
        weights = average(returned)
        assert all(bool(torch.isfinite(w).all()) for w in weights.values())
    for algo in clients:
        metrics = algo.evaluate(message(weights)).metrics
        assert 0 <= metrics["val_mean_dice"] <= 1
        assert algo.evaluator is not None
        assert not differ(algo.evaluator.network.state_dict(), weights)
        algo.finalize()
    for site in sites:
        assert (tmp_path / site.name / "models" / "model.pt").is_file()


def test_one_site_alone_equals_local_training(sites: list[Path], tmp_path: Path) -> None:
    """Two rounds of one epoch with the weights sent back unchanged are two epochs of ordinary training, bit by bit."""
    bundle = copy_bundle(tmp_path)
    algo = client(bundle, tmp_path / "federated", sites[0], send_weight_diff=True)
    weights: Weights = {n: w.clone() for n, w in algo.train_workflow.network_def.state_dict().items()}  # type: ignore[union-attr]
    start = {n: w.clone() for n, w in algo.trainer.network.state_dict().items()}  # type: ignore[union-attr]
    current = start
    for _ in range(2):
        algo.train(message(current))
        answer = algo.get_weights()
        assert answer.weight_type == WeightType.WEIGHT_DIFF
        trained = {n: w.clone() for n, w in algo.trainer.network.state_dict().items()}  # type: ignore[union-attr]
        for name, change in answer.weights.items():
            torch.testing.assert_close(current[name] + change, trained[name])
        current = trained
    local = open_workflow(bundle, "train", ["phantom"], settings(tmp_path / "local", sites[0]), workflow_type="train")
    local.parser.get_parsed_content("network_def").load_state_dict(weights)
    local.run()
    network = local.parser.get_parsed_content("network")
    assert not differ(network.state_dict(), current)
    assert differ(start, current)


def test_a_round_begins_with_the_servers_weights_not_with_the_sites_checkpoint(
    sites: list[Path], tmp_path: Path
) -> None:
    bundle = copy_bundle(tmp_path)
    first = client(bundle, tmp_path / "site", sites[0])
    weights = {n: w.clone() for n, w in first.trainer.network.state_dict().items()}  # type: ignore[union-attr]
    first.train(message(weights))
    assert (tmp_path / "site" / "models" / "checkpoint.pt").is_file()
    halves = {n: w / 2 if w.is_floating_point() else w for n, w in weights.items()}  # of zeros training would diverge
    seen: list[float] = []
    first.trainer.add_event_handler(  # type: ignore[union-attr]
        Events.STARTED,
        lambda engine: seen.append(sum(float(p.detach().abs().sum()) for p in engine.network.parameters())),
    )
    first.train(message(halves))
    names = dict(first.trainer.network.named_parameters())  # type: ignore[union-attr]
    assert seen == pytest.approx([sum(float(halves[name].abs().sum()) for name in names)], rel=1e-4)


def test_the_shipped_weights_go_on_over_two_sites(tmp_path: Path) -> None:
    """The starter: the server sends its weights, each site trains on studies of its own anatomies, and validates."""
    anatomy = Path(ensure_phantom_anatomy(tmp_path / "anatomy"))
    page = (BUNDLES.parent / "docs" / "how-to" / "federated.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"`(\{.*?\})`", page, re.DOTALL)
    settings_of_the_page = ast.literal_eval(code)
    settings_of_the_page["initial_weights"] = str(BUNDLES.parent / settings_of_the_page["initial_weights"])
    shipped = torch.load(BUNDLES / "brats_starter" / "models" / "model.pt", weights_only=True)
    weights = {f"network.{name}": value.float() for name, value in shipped.items()}
    bundle = copy_bundle(tmp_path, "brats_starter")
    returned, scores = [], []
    for number, site in enumerate(("north", "south")):
        given = {
            **starter_workflows.settings(tmp_path / "none", anatomy, tmp_path / site),
            "studies": 2,
            "batch_size": 2,
            "val_studies": 1,
            "seed": number,
            "val_interval": 2,
            **settings_of_the_page,
        }
        algo = MonaiAlgo(
            bundle_root=str(bundle),
            local_epochs=1,
            send_weight_diff=False,
            config_train_filename="configs/train.json",
            train_kwargs=dict(given),
            config_evaluate_filename="configs/train.json",
            eval_kwargs=dict(given),
        )
        algo.initialize({ExtraItems.CLIENT_NAME: site})
        algo.train(message(weights))
        answer = algo.get_weights()
        assert answer.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 1
        returned.append(answer.weights)
        scores.append(algo.evaluate(message(weights)).metrics["val_mean_dice"])
        assert algo.evaluator is not None
        tested = algo.evaluator.network.state_dict()
        assert all(torch.equal(tested[name], value) for name, value in weights.items())
        average = torch.load(tmp_path / site / "models" / "model.pt", weights_only=True)
        assert all(float((average[n] - v.float()).abs().max()) < 0.01 for n, v in shipped.items())
        algo.finalize()
    assert differ(returned[0], returned[1])  # other studies at each site
    for answer_weights in returned:
        assert answer_weights.keys() >= weights.keys()
        changes = [float((answer_weights[n] - w).abs().max()) for n, w in weights.items()]
        assert 0 < max(changes) < 0.01  # one step from the weights that were sent
    assert all(0 <= score <= 1 for score in scores)
