from __future__ import annotations

import pytest

from medmap_monai.data.validation_sampler import ValidationSampler


@pytest.mark.parametrize(("cases", "ranks"), [(0, 1), (5, 1), (5, 2), (2, 2), (7, 3)])
def test_every_case_is_in_one_process(cases: int, ranks: int) -> None:
    shares = [list(ValidationSampler([None] * cases, ranks, rank)) for rank in range(ranks)]  # type: ignore[arg-type]
    assert sorted(index for share in shares for index in share) == list(range(cases))
    assert all(share for share in shares) or cases == 0
    assert [len(ValidationSampler([None] * cases, ranks, r)) for r in range(ranks)] == [len(s) for s in shares]  # type: ignore[arg-type]


def test_with_fewer_cases_than_processes_everybody_sees_all() -> None:
    assert [list(ValidationSampler([None, None], 3, rank)) for rank in range(3)] == [[0, 1]] * 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rank must lie in 0\.\.1"):
        ValidationSampler([None], 2, 2)  # type: ignore[arg-type]
