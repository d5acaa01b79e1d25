"""MONAI's wrapping goes, and what is left can be printed."""

from __future__ import annotations

import traceback

import pytest
from rich.traceback import Traceback

from medmap_monai.utils.plain_errors import plain_errors


def wrapped(error: BaseException) -> None:
    """What MONAI does with what a component raises, twice."""
    try:
        try:
            raise error
        except BaseException as inner:
            raise RuntimeError("failed to instantiate") from inner
    except RuntimeError as inner:
        raise RuntimeError("failed to evaluate") from inner


def test_what_a_component_raised_comes_out() -> None:
    with pytest.raises(KeyError, match="t3"), plain_errors():
        wrapped(KeyError("t3"))
    with pytest.raises(RuntimeError, match="own"), plain_errors():
        raise RuntimeError("own")


def test_the_chain_of_what_comes_out_ends() -> None:
    """Whoever prints it went round for ever, and took more memory each time."""
    with pytest.raises(TypeError) as caught, plain_errors():
        wrapped(TypeError("unexpected keyword"))
    error: BaseException | None = caught.value
    chain = []
    while error is not None:
        assert error not in chain
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert [type(one) for one in chain] == [TypeError]
    assert "instantiate" not in "".join(traceback.format_exception(caught.value))
    assert len(Traceback.extract(TypeError, caught.value, caught.value.__traceback__).stacks) == 1


def test_a_cause_of_its_own_stays() -> None:
    own = TypeError("unexpected keyword")
    own.__cause__ = ValueError("below")
    with pytest.raises(TypeError) as caught, plain_errors():
        wrapped(own)
    assert isinstance(caught.value.__cause__, ValueError)
