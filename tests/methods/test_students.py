from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from medmap_monai.methods.students import StudentMode, decode_students, fastest_mode, map_students
from medmap_monai.networks.base import DecoderOutput
from tests.methods.passion_cases import NETWORKS, batch


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mode", list(StudentMode))
def test_a_student_is_the_fused_path_with_one_modality(network: str, mode: StudentMode) -> None:
    torch.manual_seed(0)
    net = NETWORKS[network]().eval()
    image, _, present, _ = batch("111 011 100")
    with torch.no_grad():
        features = net.prepare(net.encode(image, present))
        students = decode_students(net, features, present, mode)
        assert students.sample.numel() == 6
        for row, (b, m) in enumerate(zip(students.sample.tolist(), students.modality.tolist(), strict=True)):
            assert present[b, m]
            alone = torch.zeros(1, 3, dtype=torch.bool)
            alone[0, m] = True
            expected = net(image[b : b + 1], alone)
            torch.testing.assert_close(students.output.logits[row], expected[0], rtol=1e-4, atol=1e-4)
        assert len(students.output.features) == 1
        assert all(len(logits) == 6 for logits in students.output.deep_logits)


def test_what_is_kept_of_a_student_is_up_to_the_caller() -> None:
    net = NETWORKS["unet"]()
    image, _, present, _ = batch("110 001")
    features = net.encode(image, present)

    def keep(output: DecoderOutput, sample: torch.Tensor) -> list[torch.Tensor]:
        return [output.logits.mean((1, 2, 3)), sample]

    for mode in StudentMode:
        (means, told), sample, modality = map_students(net, features, present, keep, mode)
        assert means.shape == (3,)
        assert torch.equal(told, sample)
        assert sorted(zip(sample.tolist(), modality.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 2)]


def test_large_students_run_one_after_the_other_on_a_cpu() -> None:
    small, large = (torch.zeros(1).expand(1, 4, 8, n, n, n) for n in (48, 80))
    assert fastest_mode(small, 4) == StudentMode.BATCHED
    assert fastest_mode(large, 4) == StudentMode.SEQUENTIAL
    assert fastest_mode(large, 1) == StudentMode.BATCHED
    assert fastest_mode(large.to("meta"), 4) == StudentMode.BATCHED


def test_no_student_at_all_is_an_error() -> None:
    net = NETWORKS["unet"]()
    image, _, present, _ = batch("110")
    with pytest.raises(ValueError, match="no student can be decoded"):
        decode_students(net, net.encode(image, present), torch.zeros_like(present))
    with pytest.raises(ValueError, match="sequential"):
        decode_students(net, net.encode(image, present), present, "serial")


@pytest.mark.parametrize(("gigabytes", "mode"), [(80, "batched"), (8, "checkpoint")])
def test_students_that_do_not_fit_a_gpu_are_computed_again(monkeypatch, gigabytes: int, mode: str) -> None:
    class Finest:
        """What is asked of features on a GPU: four modalities of 8 channels at 80^3."""

        device = torch.device("cuda:0")
        shape = torch.Size((1, 4, 8, 80, 80, 80))

        def element_size(self) -> int:
            return 4

    properties = SimpleNamespace(total_memory=gigabytes * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert fastest_mode(Finest(), rows=4) == mode
    with torch.no_grad():
        assert fastest_mode(Finest(), rows=400) == "batched"
