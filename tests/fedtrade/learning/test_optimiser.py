"""The server's step: the textbook's Adam, bit for bit repeatable, and never on a bad gradient."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.learning.optimiser import Adam, GradientRefused


def test_it_is_adam_as_torch_has_it() -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    adam = Adam(learning_rate=0.01, beta1=0.8, beta2=0.95, stabiliser=1e-6)
    params = draw.standard_normal(50).astype(np.float32)
    theirs = torch.tensor(params, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    state = adam.start(50)
    for _ in range(20):
        gradient = draw.standard_normal(50)
        state, params = adam.step(state, params, gradient)
        theirs.grad = torch.tensor(gradient)
        optimiser.step()
    assert np.abs(params - theirs.detach().numpy()).max() < 1e-6
    assert state.steps == 20


def test_the_bits_are_pinned() -> None:
    """Whoever recomputes a release anywhere must get these bytes."""
    adam = Adam()
    params = np.linspace(-1, 1, 101, dtype=np.float32)
    state = adam.start(101)
    for k in range(1, 31):
        gradient = (np.arange(101) * k % 17 - 8) / np.float64(k)
        state, params = adam.step(state, params, gradient)
    digest = hashlib.sha256(params.tobytes() + state.second.tobytes()).hexdigest()
    assert digest == PINNED


PINNED = "02d1c6de62bf9aec29b88be06c1a9f41a525038924696272bff56f9e650fd4cd"


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_it_is_elementwise(seed: int, split: int) -> None:
    """Stepping two halves apart equals stepping the whole: no reduction hides in it."""
    draw = np.random.default_rng(seed)
    params, gradient = draw.standard_normal(41).astype(np.float32), draw.standard_normal(41)
    adam = Adam(learning_rate=0.1)
    _, whole = adam.step(adam.start(41), params, gradient)
    _, left = adam.step(adam.start(split), params[:split], gradient[:split])
    _, right = adam.step(adam.start(41 - split), params[split:], gradient[split:])
    assert whole.tobytes() == left.tobytes() + right.tobytes()


def test_inputs_are_left_alone() -> None:
    adam = Adam()
    state, params, gradient = adam.start(3), np.ones(3, np.float32), np.ones(3)
    adam.step(state, params, gradient)
    assert not state.first.any()
    assert np.array_equal(params, np.ones(3, np.float32))


@pytest.mark.parametrize(
    "gradient",
    [np.array([1.0, np.nan, 0.0]), np.array([np.inf, 0.0, 0.0]), np.zeros(2), np.zeros((3, 1))],
)
def test_a_bad_gradient_is_refused(gradient: np.ndarray) -> None:
    adam = Adam()
    with pytest.raises(GradientRefused):
        adam.step(adam.start(3), np.zeros(3, np.float32), gradient)


def test_a_step_beyond_float32_is_refused() -> None:
    adam = Adam(learning_rate=1e39)
    with pytest.raises(GradientRefused, match="float32"):
        adam.step(adam.start(1), np.zeros(1, np.float32), np.ones(1))


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 0.0}, {"beta1": 1.0}, {"beta2": -0.1}, {"stabiliser": 0.0}]
)
def test_absurd_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Adam needs"):
        Adam(**settings)
