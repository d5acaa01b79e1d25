"""Synthetic studies: reproducible, plausible, and made from label maps that are understood."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset

from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.synthesis.anatomy import anatomy_from_labels, label_map_files, load_anatomy
from medmap_monai.synthesis.cohort import write_synthetic_cohort
from medmap_monai.synthesis.deformation import rotation_matrix, voxel_positions
from medmap_monai.synthesis.draw import Draw, gaussian_blur, sample_rigid, sample_volume
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy
from medmap_monai.synthesis.priors import load_priors
from medmap_monai.synthesis.records import synthetic_records
from medmap_monai.synthesis.study import SyntheticStudy, synthesize_study
from medmap_monai.transforms.background import LARGEST_BRAIN_ML
from medmap_monai.transforms.pipelines import synthetic_transforms
from medmap_monai.transforms.synthesize_study import SynthesizeStudy

SEQUENCES = ("flair", "t1ce", "t1", "t2")
SHAPE, SPACING = (32, 40, 32), 6.0
SHARED = Path(__file__).resolve().parents[3] / "shared" / "anatomy"


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Toy label maps."""
    return label_map_files(ensure_phantom_anatomy(tmp_path_factory.mktemp("anatomy")))


def make(maps: list[Path], seed: int, **changes: object) -> SyntheticStudy:
    priors = {**load_priors(), **changes}
    state = np.random.RandomState(seed)
    return synthesize_study(load_anatomy(maps[0], SPACING), SEQUENCES, SHAPE, SPACING, priors, state)


def test_the_same_seed_gives_the_same_bits(maps: list[Path]) -> None:
    one, two, other = make(maps, 3), make(maps, 3), make(maps, 4)
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.label, two.label)
    assert not torch.equal(one.image, other.image)


def test_background_is_zero_and_tumours_lie_inside(maps: list[Path]) -> None:
    for seed in range(6):
        study = make(maps, seed)
        assert study.image.dtype == torch.float32
        assert study.label.dtype == torch.uint8
        assert bool(torch.isfinite(study.image).all())
        shown = (study.image != 0).any(dim=0)
        assert bool(shown[study.label[0] > 0].all())
        assert 0.05 < float(shown.float().mean()) < 0.8
        assert int(study.label.max()) <= 3


def test_no_head_is_larger_than_any_human_has(maps: list[Path]) -> None:
    anatomy = load_priors()["anatomy"]
    assert anatomy["largest"] < LARGEST_BRAIN_ML, "every study that is made can be loaded"
    voxel = SPACING**3 / 1000
    studies = [make(maps, seed) for seed in range(4)]
    volumes = [float((study.image != 0).any(dim=0).sum()) * voxel for study in studies]
    most = sorted(volumes)[1] + voxel
    for seed, (before, volume) in enumerate(zip(studies, volumes, strict=True)):
        study = make(maps, seed, anatomy={**anatomy, "largest": most})
        if volume <= most:
            assert torch.equal(study.image, before.image)
        else:
            shown = float((study.image != 0).any(dim=0).sum()) * voxel
            assert 0.7 * most < shown <= most
            assert study.kind == before.kind


def test_a_rigid_shift_is_what_sampling_every_position_gives() -> None:
    draw = Draw(np.random.RandomState(0), (20, 24, 18), 2.0)
    image, shift = draw.smooth_noise(6.0)[0], np.array([1.0, 0.4, -3.0])
    turn = rotation_matrix(np.array([3.0, -2.0, 5.0]))
    places = voxel_positions(draw) @ torch.as_tensor(turn.T, dtype=torch.float32)
    expected = sample_volume(image[None], places + torch.as_tensor(shift, dtype=torch.float32), 2.0)[0]
    assert torch.allclose(sample_rigid(image, turn, shift, 2.0), expected, atol=1e-4)


def test_no_tumour_where_the_priors_say_so(maps: list[Path]) -> None:
    tumour = {**load_priors()["tumour"], "none": 1.0}
    study = make(maps, 0, tumour=tumour)
    assert study.kind == "none"
    assert not bool(study.label.any())


@pytest.mark.parametrize("kind", ["ring", "low_grade", "metastases", "cavity"])
def test_every_kind_of_tumour(maps: list[Path], kind: str) -> None:
    base = load_priors()["tumour"]
    shares = {name: float(name == kind) for name in base["kinds"]}
    studies = [
        make(maps, seed, tumour={**base, "none": 0.0, "kinds": shares, "radius": [25.0, 40.0]}) for seed in range(4)
    ]
    assert {study.kind for study in studies} == {kind}
    assert all(bool((study.label > 0).any()) for study in studies)
    if kind in ("ring", "metastases"):
        assert any(bool((study.label == 3).any()) for study in studies)


def test_oedema_is_bright_on_flair_and_enhancement_on_t1ce(maps: list[Path]) -> None:
    base = load_priors()
    tumour = {**base["tumour"], "none": 0.0, "kinds": {"ring": 1.0}, "radius": [30.0, 40.0]}
    plain = {"random_contrast": 0.0, "unusual": 0.0, "scanner": {**base["scanner"], "bias": [0.0, 0.0]}}
    flair, t1ce = [], []
    for seed in range(6):
        study = make(maps, seed, tumour=tumour, **plain)
        brain = (study.image[0] != 0) & (study.label[0] == 0)
        flair.append(study.image[0][study.label[0] == 2].median() / study.image[0][brain].median())
        if bool((study.label[0] == 3).any()):
            t1ce.append(study.image[1][study.label[0] == 3].median() / study.image[1][brain].median())
    assert float(torch.stack(flair).mean()) > 1.2
    assert float(torch.stack(t1ce).mean()) > 1.2


def test_nothing_is_cached_in_training_and_an_item_depends_on_seed_and_epoch_alone(maps: list[Path]) -> None:
    records = synthetic_records(maps[0].parent, "train", 4, held_out=1)
    assert {record["anatomy"] for record in records} == {str(path) for path in maps[:-1]}
    pipeline = synthetic_transforms(SEQUENCES, SHAPE, SPACING)
    one = SeededCacheDataset(records, pipeline, seed=1, cache_rate=1.0)
    two = SeededCacheDataset(records, synthetic_transforms(SEQUENCES, SHAPE, SPACING), seed=1, cache_rate=0.0)
    first = one[2]["image"]
    assert torch.equal(first, two[2]["image"])
    one.set_epoch(1)
    assert not torch.equal(first, one[2]["image"])
    assert isinstance(one, CacheDataset)


def test_unknown_labels_and_sequences_are_named() -> None:
    labels = np.full((8, 8, 8), 2, dtype=np.int32)
    labels[0, 0, 0] = 99
    with pytest.raises(ValueError, match="99"):
        anatomy_from_labels(labels, (1.0, 1.0, 1.0), 2.0, "brain.nii.gz")
    with pytest.raises(ValueError, match="empty"):
        anatomy_from_labels(np.zeros((8, 8, 8), dtype=np.int32), (1.0, 1.0, 1.0), 2.0, "brain.nii.gz")
    with pytest.raises(ValueError, match="'pd'"):
        SynthesizeStudy(("flair", "pd"), SHAPE, SPACING)


def test_cortical_parcels_count_as_cortex() -> None:
    labels = np.full((8, 8, 8), 1011, dtype=np.int32)
    anatomy = anatomy_from_labels(labels, (1.0, 1.0, 1.0), 1.0, "aparc")
    assert int(anatomy.tissue[1].max()) == 255
    assert int(anatomy.tissue[0].max()) == 0


def test_priors_inherit_and_refuse_what_is_unknown(tmp_path: Path) -> None:
    shifted, base = load_priors("shifted"), load_priors()
    assert shifted["name"] == "shifted"
    assert shifted["tissue"]["t2"] != base["tissue"]["t2"]
    assert shifted["hyperintensities"] == base["hyperintensities"]
    (tmp_path / "base.yaml").write_text("tumour: {radius: [1, 2]}\nname: base\n")
    (tmp_path / "own.yaml").write_text("inherits: base.yaml\ntumour: {radios: [1, 2]}\n")
    with pytest.raises(ValueError, match=r"tumour\.radios"):
        load_priors(tmp_path / "own.yaml")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_priors("nowhere")


def test_wide_priors_reach_as_far_as_the_default_ones() -> None:
    def check(wide: dict[str, Any], base: dict[str, Any], where: str) -> int:
        wider = 0
        for key, value in base.items():
            if isinstance(value, dict):
                wider += check(wide[key], value, f"{where}.{key}")
            elif isinstance(value, list) and len(value) == 2 and not isinstance(value[0], str):
                assert wide[key][0] <= value[0], f"{where}.{key}"
                assert wide[key][1] >= value[1], f"{where}.{key}"
                wider += wide[key] != value
        return wider

    assert check(load_priors("wide"), load_priors(), "priors") >= 30


def test_a_table_of_ones_own_may_inherit_from_a_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("name: none\ninherits: shifted\ntumour: {none: 1.0}\n")
    own = load_priors(tmp_path / "none.yaml")
    assert own["tumour"]["none"] == 1.0
    assert own["tissue"] == load_priors("shifted")["tissue"]
    (tmp_path / "loop.yaml").write_text("name: loop\ninherits: loop.yaml\n")
    with pytest.raises(ValueError, match="inherits from itself"):
        load_priors(tmp_path / "loop.yaml")
    (tmp_path / "broken.yaml").write_text("name: [\n")
    with pytest.raises(ValueError, match=r"broken\.yaml is no YAML file"):
        load_priors(tmp_path / "broken.yaml")


def test_smooth_noise_has_its_mean_spread_and_scale() -> None:
    draw = Draw(np.random.RandomState(0), (32, 32, 32), 2.0)
    fine, coarse = draw.smooth_noise(4.0)[0], draw.smooth_noise(30.0)[0]
    for field in (fine, coarse):
        assert abs(float(field.mean())) < 1e-4
        assert abs(float(field.std()) - 1) < 1e-2
    assert float(fine.diff(dim=0).abs().mean()) > 3 * float(coarse.diff(dim=0).abs().mean())


def test_blur_keeps_the_sum_and_sampling_the_values() -> None:
    x = torch.zeros(1, 21, 21, 21)
    x[0, 10, 10, 10] = 1.0
    blurred = gaussian_blur(x, [1.5, 1.5, 0.0])
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float(blurred[0, 10, 10, 9]) == 0.0
    volume = torch.rand(2, 5, 6, 7)
    places = torch.tensor([[[[0.0, -0.5 * 3, 1.0 * 3]]]])  # voxel (2, 2, 4) of 3 mm
    assert torch.allclose(sample_volume(volume, places, 3.0)[:, 0, 0, 0], volume[:, 2, 2, 4], atol=1e-5)


def test_mass_effect_pushes_outwards_and_stops_at_the_skull(maps: list[Path]) -> None:
    from medmap_monai.synthesis.deformation import push_outwards, voxel_positions

    draw = Draw(np.random.RandomState(0), (16, 16, 16), 4.0)
    positions = voxel_positions(draw)
    room = torch.ones(16, 16, 16)
    room[0] = 0
    source = push_outwards(positions, torch.zeros(3), 12.0, 8.0, 1.2, room)
    moved = (positions - source).square().sum(-1).sqrt()
    assert bool((source.square().sum(-1) <= positions.square().sum(-1) + 1e-4).all())
    assert float(moved[0].max()) == 0
    assert 2 < float(moved.max()) <= 8.0


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the label maps of ../shared/anatomy")
def test_real_anatomy() -> None:
    brain = load_anatomy(label_map_files(SHARED)[0], 4.0)
    study = synthesize_study(brain, SEQUENCES, (40, 48, 40), 4.0, load_priors(), np.random.RandomState(1))
    litres = float((study.image[0] != 0).sum()) * 64e-6
    assert 0.7 < litres < 2.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_changes_noise_alone(maps: list[Path]) -> None:
    on_cpu = make(maps, 5)
    state = np.random.RandomState(5)
    on_gpu = synthesize_study(
        load_anatomy(maps[0], SPACING), SEQUENCES, SHAPE, SPACING, load_priors(), state, device="cuda"
    )
    agree = (on_cpu.label == on_gpu.label.cpu()).float().mean()
    assert float(agree) > 0.999


def test_nifti_maps_in_any_orientation(tmp_path: Path, maps: list[Path]) -> None:
    image = nib.load(maps[0])
    data = np.asarray(image.dataobj)
    flipped = nib.Nifti1Image(data[::-1], image.affine @ np.diag([-1.0, 1, 1, 1]))
    nib.save(flipped, tmp_path / "lps.nii.gz")
    plain, turned = load_anatomy(maps[0], 6.0), load_anatomy(tmp_path / "lps.nii.gz", 6.0)
    assert torch.equal(plain.tissue, turned.tissue)


def test_processes_write_the_same_files(tmp_path: Path, maps: list[Path]) -> None:
    folder = maps[0].parent
    done: list[int] = []
    alone = write_synthetic_cohort(tmp_path / "alone", folder, 3, 6.0, seed=5, first_case=2)
    beside = write_synthetic_cohort(
        tmp_path / "beside", folder, 3, 6.0, seed=5, first_case=2, progress=lambda k, _: done.append(k), workers=2
    )
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert len(files) == 16  # marker; four sequences and a label each
    assert files == sorted(path.relative_to(beside) for path in beside.rglob("*") if path.is_file())
    assert all(_content(alone / file) == _content(beside / file) for file in files)
    assert done == [1, 2, 3]


def _content(path: Path) -> bytes:
    """Without the time that gzip writes into its header."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_priors_of_ones_own_are_not_called_as_what_they_inherit_from(tmp_path: Path) -> None:
    names = []
    for chance in (0.1, 0.9):
        (tmp_path / "mine.yaml").write_text(f"inherits: default\nunusual: {chance}\n")
        names.append(load_priors(tmp_path / "mine.yaml")["name"])
    assert all(re.fullmatch(r"mine [0-9a-f]{8}", name) for name in names)
    assert names[0] != names[1]
    (tmp_path / "named.yaml").write_text("name: ours\ninherits: default\n")
    assert load_priors(tmp_path / "named.yaml")["name"] == "ours"
