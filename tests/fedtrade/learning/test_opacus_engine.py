"""The engine for layers without a kernel: per position, bounded, and careful with the module."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fedtrade.learning.opacus_engine import CannotClip, clipped_gradient_sum
from fedtrade.learning.windows import PositionBatch

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook", "ignore:Secure RNG")


class Attention(nn.Module):
    """Layers that no kernel of ours knows: attention over four steps, normalised by layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.score = nn.Linear(3, 1)
        self.head = nn.Linear(3, 2)
        self.step = nn.Embedding(4, 3)

    def forward(self, rows):
        places = torch.arange(4).expand(len(rows), 4)
        x = self.norm(rows.view(-1, 4, 3)) + self.step(places)
        return self.head((torch.softmax(self.score(x), 1) * x).sum(1))


def some_module(precision=torch.float64):
    torch.manual_seed(3)
    return Attention().to(precision)


def some_batch(seed=0, positions=6, windows=3):
    draw = np.random.default_rng(seed)
    return PositionBatch(
        draw.standard_normal((positions, windows, 12)).astype(np.float32),
        (4 * draw.standard_normal((positions, windows, 2))).astype(np.float32),
        np.full((positions, windows), 1 / windows, np.float32),
    )


def one_position(module, batch, p):
    """Gradient of one position's loss by autograd, in the order of sorted names."""
    huber = nn.functional.huber_loss
    outputs = module(torch.tensor(batch.features[p], dtype=torch.float64))
    targets = torch.tensor(batch.targets[p], dtype=torch.float64)
    losses = huber(outputs[:, 0], targets[:, 0], delta=3.0, reduction="none")
    losses = losses + 0.5 * huber(outputs[:, 1], targets[:, 1], delta=1.0, reduction="none")
    named = dict(sorted(module.named_parameters()))
    weights = torch.tensor(batch.weights[p], dtype=torch.float64)
    found = torch.autograd.grad((losses * weights).sum(), list(named.values()))
    return torch.cat([g.flatten() for g in found]).numpy()


@pytest.mark.parametrize("clip", [0.5, math.inf])
def test_positions_are_clipped_not_rows(clip):
    module, batch = some_module(), some_batch()
    ours, _ = clipped_gradient_sum(module, batch, clip)
    each = [one_position(module, batch, p) for p in range(batch.count)]
    wanted = sum(g * min(1.0, clip / np.linalg.norm(g)) for g in each)
    assert np.linalg.norm(ours - wanted) < 1e-12 * np.linalg.norm(wanted)


def test_one_position_moves_the_sum_by_at_most_the_bound():
    module, batch = some_module(), some_batch(1)
    whole, _ = clipped_gradient_sum(module, batch, 0.25)
    for gone in range(batch.count):
        rest, _ = clipped_gradient_sum(module, batch.take(np.arange(batch.count) != gone), 0.25)
        assert np.linalg.norm(whole - rest) <= 0.25 * (1 + 1e-9)


def test_the_module_is_left_as_it_was():
    module, batch = some_module(), some_batch()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    first, loss = clipped_gradient_sum(module, batch, 1.0)
    second, again = clipped_gradient_sum(module, batch, 1.0)
    assert (first == second).all()
    assert loss == again
    for name, p in module.named_parameters():
        assert torch.equal(before[name], p)
        assert p.grad is None
        assert not hasattr(p, "grad_sample")
    assert all(not m._forward_hooks and not m._backward_hooks for m in module.modules())


def test_frozen_parameters_are_no_part_of_the_vector():
    module, batch = some_module(), some_batch()
    whole, _ = clipped_gradient_sum(module, batch, math.inf)
    module.head.weight.requires_grad_(False)
    rest, _ = clipped_gradient_sum(module, batch, math.inf)
    assert len(rest) == len(whole) - 6


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(12), nn.BatchNorm1d(12, track_running_stats=False), nn.GRU(12, 12)]
)
def test_a_layer_that_mixes_rows_or_hides_its_steps_is_refused(layer):
    module = nn.Sequential(nn.Linear(12, 12), layer, nn.Linear(12, 2))
    with pytest.raises(CannotClip):
        clipped_gradient_sum(module, some_batch(), 1.0)


def test_a_position_that_is_not_finite_adds_nothing():
    module, batch = some_module(torch.float32), some_batch()
    rest, _ = clipped_gradient_sum(module, batch.take(np.arange(6) != 2), 1.0)
    weights = batch.weights.copy()
    weights[2, 1] = np.nan
    object.__setattr__(batch, "weights", weights)
    found, _ = clipped_gradient_sum(module, batch, 1.0)
    assert np.allclose(found, rest, rtol=1e-5, atol=1e-6)


def test_an_empty_sample_is_zero_and_a_clip_norm_positive():
    module, batch = some_module(), some_batch()
    total, loss = clipped_gradient_sum(module, batch.take(np.zeros(6, np.bool_)), 1.0)
    assert len(total) == sum(p.numel() for p in module.parameters())
    assert not total.any()
    assert loss == 0.0
    with warnings.catch_warnings(), pytest.raises(ValueError, match="clip_norm"):
        clipped_gradient_sum(module, batch, 0.0)
