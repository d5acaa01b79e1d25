"""DMAF-Net's training method: its losses by hand, gradient scaling, missing modalities, two processes, resume."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from monai.bundle import ConfigParser
from torch.nn.parallel import DistributedDataParallel

from medmap_monai.losses.covariance_consistency import CovarianceConsistencyLoss
from medmap_monai.losses.masked_attention_alignment import MaskedAttentionAlignmentLoss
from medmap_monai.losses.prototype_alignment import PrototypeAlignmentLoss
from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.losses.temperature_kl import TemperatureKLLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.case_counts import CaseCounts
from medmap_monai.methods.dmaf import DMAF, deepest_channels
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.training_monitor import DynamicTrainingMonitor
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet
from tests.engines.training import tiny_trainer

MASK = torch.tensor([[1, 1, 1], [0, 1, 0], [1, 0, 1]]).bool()
SMALL = {"out_channels": 3, "channels": (4, 8), "deep_supervision": 0}
PLAIN_DMAF = {"depth": 1, "dropout": 0.0, "tokens": 2}


def _dmafnet(dims: int = 2, modalities: int = 3) -> DMAFNet:
    torch.manual_seed(0)
    return DMAFNet(dims, modalities, dmaf=PLAIN_DMAF, **SMALL)


def _unet(dims: int = 2, modalities: int = 3) -> ModalityUNet:
    torch.manual_seed(0)
    return ModalityUNet(dims, modalities, **SMALL)


def _batch(dims: int = 2, modalities: int = 3, rows: int = 3, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(rows, modalities, *[size] * dims, generator=generator)
    return image, torch.randint(0, 3, (rows, 1, *[size] * dims), generator=generator)


def _call(method: DMAF, mask: torch.Tensor = MASK, dims: int = 2, present: torch.Tensor | None = None) -> MethodOutput:
    image, label = _batch(dims, mask.shape[1], len(mask))
    return method(image, mask, mask if present is None else present, label)


def _total(output: MethodOutput) -> torch.Tensor:
    return torch.stack(list(output.losses.values())).sum()


_BACKBONES = {
    "unet": _unet,
    "dmafnet": _dmafnet,
    "dmafnet 3d": lambda: _dmafnet(dims=3),
    "unet with dmaf": lambda: ModalityUNet(2, 3, 3, (4, 8, 12), 1, fusion=("dmaf", PLAIN_DMAF)),
    "rfnet": lambda: RFNet(3, 3, 3, base_width=2, levels=3),
    "mmformer": lambda: MMFormer(
        2, 3, 3, base_width=2, levels=3, token_width=8, heads=2, mlp_width=8, position_size=2, dropout_rate=0.0
    ),
    "m2ftrans": lambda: M2FTrans(
        2, 3, 3, base_width=4, levels=3, transformer_layers=1, heads=2, mlp_width=8, position_size=2, dropout_rate=0.0
    ),
    "aligned": lambda: AlignedNetwork(_dmafnet()),
}


@pytest.mark.parametrize("name", list(_BACKBONES))
def test_runs_on_backbones_with_finite_gradients_everywhere(name):
    network = _BACKBONES[name]()
    method = DMAF(network, weights={"pixel": 0.1}, attention_loss=_attention(network), attention_keys="foreground")
    mask = torch.tensor([[1, 1, 1], [0, 1, 0]]).bool()
    output = _call(method, mask, network.spatial_dims)
    expected = {"fused", "modality", "covariance", "attention", "prototype", "pixel"}
    assert set(output.losses) - {"deep"} == expected
    assert all(value.isfinite() and value > 0 for value in output.losses.values())
    _total(output).backward()
    method.after_backward()
    missing = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


def test_composes_with_medmap_and_the_network_with_passion():
    image, label = _batch()
    method = MedMAP(DMAF(AlignedNetwork(_dmafnet())))
    output = method(image, MASK, MASK, label)
    assert {"align", "prototype", "modality"} < set(output.losses)
    _total(output).backward()
    method.after_backward()
    passion = Passion(_dmafnet(), modality_weight=[1.0] * 3)
    _total(passion(image, MASK, MASK, label)).backward()
    for module in (method, passion):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def _attention(network: ModalityNetwork, **options: object) -> MaskedAttentionAlignmentLoss:
    return MaskedAttentionAlignmentLoss(deepest_channels(network), heads=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", ["teacher", "none"])
@pytest.mark.parametrize("network", [_unet, _dmafnet])
def test_losses_equal_the_objective_written_out(network, scale):
    """Sum over modalities, mean over samples, with loss weights and missing-rate weights, on fixed features."""
    net = network()
    monitor = DynamicTrainingMonitor(3)
    monitor.weights.copy_(torch.tensor([0.5, 1.5, 1.0]))
    cases = CaseCounts(("a", "b", "c"), 12, [6, 12, 3])  # omega = 2, 1, 4
    method = DMAF(
        net,
        weights={"covariance": 0.2, "attention": 0.3, "prototype": 0.4, "pixel": 0.5, "modality": 0.6},
        monitor=monitor,
        cases=cases,
        feature_scale=scale,
    ).eval()  # in eval mode the monitor stands still
    image, label = _batch()
    output = method(image, MASK, MASK, label)
    features = net.encode(image, MASK)
    fused = net.decode(features, MASK)
    segmentation, pixel, prototype = WeightedCEDiceLoss(), TemperatureKLLoss(), PrototypeAlignmentLoss()
    areas = prototype.class_areas(label, 3, (4, 4))
    expected = dict.fromkeys(("covariance", "attention", "prototype", "pixel", "modality"), torch.zeros(()))
    for n in range(3):
        row = slice(n, n + 1)
        for m in torch.nonzero(MASK[n]).flatten().tolist():
            size = fused.fused[-1][row].square().mean().sqrt() if scale == "teacher" else 1.0
            own, teacher = features.pyramid[-1][row, m] / size, fused.fused[-1][row] / size
            factor = [0.5 * 2, 1.5 * 1, 1.0 * 4][m] / 3
            if network is _dmafnet:
                alone = net.decode_unimodal(features, torch.tensor([n]), torch.tensor([m]))
            else:
                alone = net(image[row], torch.eye(3, dtype=torch.bool)[m : m + 1])
            assert method.covariance_loss is not None
            assert method.attention_loss is not None
            values = {
                "covariance": 0.2 * factor * method.covariance_loss(own, teacher).sum(),
                "attention": 0.3 * factor * method.attention_loss(own, teacher).sum(),
                "prototype": 0.4 * factor * prototype(own, teacher, areas[row]).sum(),
                "pixel": 0.5 * factor * pixel(alone, fused.logits[row]),
                "modality": 0.6 / 3 * segmentation(alone, label[row]),
            }
            expected = {name: expected[name] + value for name, value in values.items()}
    torch.testing.assert_close(output.losses["fused"], segmentation(fused.logits, label))
    for name, value in expected.items():
        torch.testing.assert_close(output.losses[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("scale", "powers"), [("teacher", (0, 0, 0)), ("none", (4, 2, 2))])
def test_distillation_does_not_depend_on_the_size_of_the_features(scale, powers):
    """Ten times larger features: the same losses, where features as they are give 100 or 10000 times larger ones."""
    method = DMAF(_unet(), feature_scale=scale).eval()
    with torch.no_grad():
        method.attention_loss.attention.out_proj.bias.zero_()
    image, label = _batch()
    features = method.network.encode(image, MASK)
    fused = method.network.decode(features, MASK).fused[-1]
    one = method._distillation(features.pyramid[-1], fused, label, MASK)
    ten = method._distillation(10 * features.pyramid[-1], 10 * fused, label, MASK)
    for name, power in zip(("covariance", "attention", "prototype"), powers, strict=True):
        if name == "attention" and scale == "none":  # attention sees normalised tokens: its output does not grow along
            assert ten[name].sum() > 50 * one[name].sum()
        else:
            torch.testing.assert_close(ten[name], 10.0**power * one[name], rtol=1e-3, atol=1e-6)


def test_an_all_zero_teacher_gives_finite_losses():
    method = DMAF(_unet())
    deepest, fused = torch.zeros(3, 3, 8, 4, 4), torch.zeros(3, 8, 4, 4)
    values = method._distillation(deepest, fused, _batch()[1], MASK)
    assert all(value.isfinite().all() for value in values.values())


def test_monitor_sees_samples_whose_teacher_has_at_least_two_modalities():
    method = DMAF(_unet())
    output = _call(method)  # the second sample has one modality
    assert method.monitor.terms == ("covariance", "attention", "prototype")
    assert int(method.monitor.steps) == 1
    method.eval()
    for m, rows in ((0, [0, 2]), (1, [0]), (2, [0, 2])):
        one = torch.zeros(3, 3, dtype=torch.bool)
        one[rows, m] = True
        gap = _gap(method, MASK, one, m)
        torch.testing.assert_close(method.monitor.gaps[2, m], gap)
    assert output.per_modality["prototype"][1] != method.monitor.gaps[2, 1]  # the report has both of its samples
    assert int(method.monitor.steps) == 1  # eval mode


def _gap(method: DMAF, mask: torch.Tensor, pairs: torch.Tensor, m: int) -> torch.Tensor:
    """Mean prototype term of modality ``m`` over the samples in ``pairs``."""
    image, label = _batch()
    net = method.network
    features = net.encode(image, mask)
    fused = net.decode(features, mask).fused[-1]
    size = fused.square().mean((1, 2, 3), keepdim=True).sqrt()
    loss = PrototypeAlignmentLoss()
    return (
        loss(features.pyramid[-1][:, m] / size, fused / size, loss.class_areas(label, 3, (4, 4)))[pairs[:, m]]
        .mean()
        .detach()
    )


def test_only_lone_modalities_leave_the_monitor_alone():
    method = DMAF(_dmafnet())
    output = _call(method, torch.eye(3, dtype=torch.bool))
    assert all(value.isfinite() for value in output.losses.values())
    assert output.losses["prototype"].item() == 0.0  # teacher and student see the same, and DMAF gives it back
    assert output.losses["covariance"].item() < 1e-12
    assert not method.monitor.seen.any()
    assert torch.equal(method.monitor.weights, torch.ones(3))


@pytest.mark.parametrize("network", [_unet, _dmafnet])
def test_absent_content_has_no_influence(network):
    method = DMAF(network(), weights={"pixel": 1.0}).eval()
    image, label = _batch()
    clean = method(image, MASK, MASK, label).losses
    image[~MASK] = float("nan")
    assert all(torch.equal(value, clean[name]) for name, value in method(image, MASK, MASK, label).losses.items())


def test_hidden_modalities_are_distilled():
    """Complete data: a modality that the fused path may not see still learns from it."""
    method = DMAF(_unet())
    hidden = torch.tensor([[1, 1, 0]] * 3).bool()
    _total(_call(method, hidden, present=torch.ones_like(hidden))).backward()
    assert any(bool(p.grad.any()) for p in method.network.encoders[2].parameters() if p.grad is not None)


@pytest.mark.parametrize("network", [_unet, _dmafnet])
def test_terms_without_weight_are_left_out(network):
    off = {"modality": 0.0, "covariance": 0.0, "attention": 0.0, "prototype": 0.0}
    method = DMAF(network(), weights=off)
    output = _call(method)
    assert set(output.losses) == {"fused"}
    output.losses["fused"].backward()
    assert all(p.grad is not None for p in method.parameters())
    one = DMAF(network(), weights={**off, "prototype": 1.0})
    assert set(_call(one).losses) == {"fused", "prototype"}
    assert one.monitor.terms == ("prototype",)


def test_a_term_that_is_switched_off_does_not_dilute_the_balance():
    """Bundles give the monitor all three terms, whatever weights they have."""
    off = {"covariance": 0.0, "attention": 0.0}
    own, given = (DMAF(_unet(), weights=off, monitor=m) for m in (None, DynamicTrainingMonitor(3)))
    for method in (own, given):
        _call(method, torch.ones(3, 3, dtype=torch.bool))
    assert (own.monitor.weights - 1).abs().max() > 0.01
    torch.testing.assert_close(given.monitor.weights, own.monitor.weights)
    assert given.monitor.balance_report()["gap_covariance"].isnan().all()


def test_gradient_scaling_changes_an_sgd_step_as_computed_by_hand():
    image, label = _batch()
    steps = {}
    for mode in ("off", "grad"):
        monitor = DynamicTrainingMonitor(3, grad_mode=mode, alpha=0.0, momentum=0.0)
        method = DMAF(_unet(), monitor=monitor)
        before = copy.deepcopy(method.state_dict())
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        _total(method(image, MASK, MASK, label)).backward()
        method.after_backward()
        optimizer.step()
        steps[mode] = {name: value - before[name] for name, value in method.state_dict().items()}
        scales = method.monitor.scales
    assert (scales - 1).abs().max() > 0.01
    for name, step in steps["off"].items():
        if name.startswith("monitor"):
            continue
        m = int(name.split(".")[2]) if name.startswith("network.encoders") else None
        expected = step if m is None else scales[m] * step
        torch.testing.assert_close(steps["grad"][name], expected, rtol=1e-3, atol=1e-7)


def test_learning_rate_mode_scales_the_rate_and_puts_it_back():
    image, label = _batch()
    steps, rates = {}, []
    for mode in ("off", "lr"):
        monitor = DynamicTrainingMonitor(3, grad_mode=mode, alpha=0.0, momentum=0.0)
        method = DMAF(_unet(), monitor=monitor)
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        optimizer = method.attach_optimizer(torch.optim.AdamW(method.parameter_groups(), lr=0.01, weight_decay=0.0))
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=4, power=1.0)
        for _ in range(2):
            optimizer.zero_grad()
            _total(method(image, MASK, MASK, label)).backward()
            method.after_backward()
            if not steps.get(mode):
                optimizer.step()
                steps[mode] = {n: p.detach() - before[n] for n, p in method.named_parameters()}
                scales = method.monitor.scales.clone()
            else:
                optimizer.step()
            schedule.step()
            rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates[:2] == rates[2:]  # the schedule never sees a scaled rate
    assert rates[2:] == [pytest.approx([rate] * 4) for rate in (0.0075, 0.005)]
    for name, step in steps["off"].items():
        m = int(name.split(".")[2]) if name.startswith("network.encoders") else None
        torch.testing.assert_close(steps["lr"][name], step if m is None else scales[m] * step, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_trainer_lets_the_monitor_scale_rates(tmp_path, wrapped):
    """And once, where a configuration has attached the optimizer already."""
    seen = []

    def make(network: ModalityNetwork) -> Method:
        lr = DynamicTrainingMonitor(3, grad_mode="lr", alpha=0.0, momentum=0.0)
        inner = DMAF(AlignedNetwork(network) if wrapped else network, monitor=lr)
        inner.monitor.scales.copy_(torch.tensor([0.5, 1.0, 1.5]))
        return MedMAP(inner) if wrapped else inner

    trainer = tiny_trainer(tmp_path, epochs=1, make_method=make)
    groups = trainer.method.parameter_groups()
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in trainer.method.parameters())
    trainer.method.attach_optimizer(trainer.optimizer)
    trainer.optimizer.register_step_pre_hook(lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups]))
    trainer.optimizer.step()
    assert seen == [pytest.approx([0.005, 0.01, 0.015, 0.01])]


def test_parameter_groups_hold_every_parameter_once():
    method = DMAF(_dmafnet())
    groups = method.parameter_groups()
    assert [group.get("modality") for group in groups] == [0, 1, 2, None]
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in method.parameters())
    off = DMAF(_dmafnet(), monitor=DynamicTrainingMonitor(3, grad_mode="lr"))
    with pytest.raises(ValueError, match="parameter_groups"):
        off.attach_optimizer(torch.optim.SGD(off.parameters(), lr=0.1))


def test_resume_is_exact(tmp_path):
    def train(method: DMAF, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            image, label = _batch(rows=2)
            optimizer.zero_grad()
            mask = MASK[[step % 3, (step + 1) % 3]]
            _total(method(image + step, mask, mask, label)).backward()
            method.after_backward()
            optimizer.step()

    def fresh() -> tuple[DMAF, torch.optim.Optimizer]:
        method = DMAF(_dmafnet())
        return method, torch.optim.AdamW(method.parameters(), lr=0.01)

    torch.manual_seed(0)
    method, optimizer = fresh()
    train(method, optimizer, range(2))
    torch.save({"method": method.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    train(method, optimizer, range(2, 4))
    resumed, its_optimizer = fresh()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed.load_state_dict(saved["method"])
    its_optimizer.load_state_dict(saved["optimizer"])
    train(resumed, its_optimizer, range(2, 4))
    assert resumed.monitor.steps == 4
    for name, value in method.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def _rank(rank: int, folder: str) -> None:
    """One of two processes: its sample of the batch of two, then gradients and state to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    method = DMAF(_dmafnet())
    model = DistributedDataParallel(method, broadcast_buffers=False)
    image, label = _batch(rows=2)
    for mask in _TWO_STEPS:
        method.zero_grad()
        row = slice(rank, rank + 1)
        _total(model(image[row], mask[row], mask[row], label[row])).backward()
    method.after_backward()
    content = {"gradients": [p.grad for p in method.parameters()], "monitor": method.monitor.state_dict()}
    torch.save(content, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


# in the first step the ranks share one modality, in the second none
_TWO_STEPS = [torch.tensor([[1, 1, 0], [0, 1, 1]]).bool(), torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()]


def test_two_processes_equal_one(tmp_path: Path):
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    method = DMAF(_dmafnet())
    image, label = _batch(rows=2)
    for mask in _TWO_STEPS:
        method.zero_grad()
        _total(method(image, mask, mask, label)).backward()
    method.after_backward()
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, value in method.monitor.state_dict().items():
        assert torch.equal(results[0]["monitor"][name], results[1]["monitor"][name])
        torch.testing.assert_close(results[0]["monitor"][name], value, rtol=1e-4, atol=1e-6)
    assert method.monitor.seen.tolist() == [[2, 2, 1]] * 3
    for gradient, parameter in zip(results[0]["gradients"], method.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="foreground"):
        DMAF(_unet(), attention_keys="some")
    with pytest.raises(ValueError, match="teacher"):
        DMAF(_unet(), feature_scale="some")
    with pytest.raises(ValueError, match="the network 3"):
        DMAF(_unet(), cases=CaseCounts(("a", "b"), 4, [2, 2]))
    with pytest.raises(ValueError, match="watches"):
        DMAF(_unet(), monitor=DynamicTrainingMonitor(2))
    with pytest.raises(ValueError, match="watches"):
        DMAF(_unet(), monitor=DynamicTrainingMonitor(3, terms=("covariance",)))
    early = EarlyFusionUNet(2, 3, 3, (4, 8), deep_supervision=0)
    with pytest.raises(ValueError, match="EarlyFusionUNet"):
        DMAF(early)


def test_own_losses_may_be_given():
    net = _unet()
    method = DMAF(
        net,
        segmentation_loss=lambda logits, label: logits.square().mean(),
        covariance_loss=CovarianceConsistencyLoss(8, modalities=3, form="corr", linear="per_modality"),
        attention_loss=_attention(net, query="fused"),
        prototype_loss=PrototypeAlignmentLoss(labels="nearest", metric="cosine"),
        students="sequential",
    )
    output = _call(method)
    torch.testing.assert_close(output.losses["fused"], output.pred.square().mean())
    _total(output).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_the_documentation_configures_what_it_says():
    page = Path(__file__).parents[2] / "docs" / "explanation" / "dmafnet.md"
    blocks = [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(blocks) == 2
    parser = ConfigParser({"modalities": ["bssfp", "lge", "t2"], "num_classes": 3, "learning_rate": 0.01})
    for block in blocks:
        parser.update(block)
    parser["network_def"].update({"spatial_dims": 2, "channels": [4, 8], "deep_supervision": 0})
    parser["method"].update({"monitor": "@monitor"})
    method, optimizer = parser.get_parsed_content("method"), parser.get_parsed_content("optimizer")
    assert isinstance(method.network, DMAFNet)
    assert method.monitor.grad_mode == "lr"
    assert len(optimizer.param_groups) == 4
