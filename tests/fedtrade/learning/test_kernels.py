"""The algebra of clipping: norms and sums of affine maps, against gradients formed one by one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.learning import kernels
from fedtrade.learning.kernels import Affine, clipped_sum

torch.set_num_threads(1)


def some_affines(seed, positions, windows, shapes):
    """Maps of (rows, n, m) each; slopes of very different sizes from position to position."""
    draw = torch.Generator().manual_seed(seed)
    size = torch.logspace(-2, 2, positions).repeat_interleave(windows)[:, None]
    found = []
    for place, (rows, n, m) in enumerate(shapes):
        count = positions * windows
        inputs = torch.randn(rows, count, n, generator=draw, dtype=torch.float64)
        slopes = torch.randn(rows, count, m, generator=draw, dtype=torch.float64)
        found.append(Affine(f"map{place}", inputs, slopes * size))
    return found


def one_by_one(affines, positions, clip):
    """Each position's gradient formed, clipped and added."""
    windows = affines[0].inputs.shape[1] // positions
    total = {}
    for p in range(positions):
        mine = slice(p * windows, (p + 1) * windows)
        parts = {}
        for a in affines:
            parts[f"{a.name}.weight"] = torch.einsum(
                "rwm,rwn->mn", a.slopes[:, mine], a.inputs[:, mine]
            ).flatten()
            parts[f"{a.name}.bias"] = a.slopes[:, mine].sum((0, 1))
        norm = float(torch.cat(list(parts.values())).norm())
        for name, part in parts.items():
            total[name] = total.get(name, 0) + part * min(1.0, clip / norm)
    return total


SHAPES = st.lists(
    st.tuples(st.sampled_from([1, 2, 9]), st.integers(1, 12), st.integers(1, 12)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    positions=st.integers(1, 6),
    windows=st.sampled_from([1, 2, 5]),
    shapes=SHAPES,
    clip=st.sampled_from([1e-3, 1.0, 30.0, math.inf]),
)
def test_the_sum_is_that_of_gradients_clipped_one_by_one(seed, positions, windows, shapes, clip):
    affines = some_affines(seed, positions, windows, shapes)
    ours, theirs = clipped_sum(affines, positions, clip), one_by_one(affines, positions, clip)
    assert ours.keys() == theirs.keys()
    for name, part in theirs.items():
        assert torch.allclose(ours[name], part, rtol=1e-9, atol=1e-9 * float(part.abs().max()))


@pytest.mark.parametrize("shape", [(4, 20, 30), (40, 5, 6)])  # by Gram matrices; by products
@pytest.mark.parametrize("scratch", [1, 2**22])  # one position a block; all at once
def test_norms_are_the_same_by_either_rule_and_in_any_blocks(shape, scratch, monkeypatch):
    monkeypatch.setattr(kernels, "_SCRATCH", scratch)
    (affine,) = some_affines(1, 7, 2, [shape])
    found = kernels._squared_norms(affine, 7)
    gradients = torch.einsum(
        "rpwm,rpwn->pmn",
        affine.slopes.view(shape[0], 7, 2, -1),
        affine.inputs.view(shape[0], 7, 2, -1),
    )
    biases = affine.slopes.view(shape[0], 7, 2, -1).sum((0, 2))
    wanted = gradients.square().sum((1, 2)) + biases.square().sum(1)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=0)
    assert (found >= wanted).all()  # the bound of the rounding error is in it


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e200])
@pytest.mark.parametrize("where", ["inputs", "slopes"])
def test_what_is_not_finite_adds_nothing_to_any_map(bad, where):
    affines = some_affines(3, 4, 2, [(3, 4, 5), (1, 5, 2)])
    getattr(affines[0], where)[1, 2] = bad  # a row of position 1
    keep = torch.tensor([0, 1, 4, 5, 6, 7])
    others = [Affine(a.name, a.inputs[:, keep], a.slopes[:, keep]) for a in affines]
    ours, theirs = clipped_sum(affines, 4, 1.0), clipped_sum(others, 3, 1.0)
    for name, part in theirs.items():
        assert torch.allclose(ours[name], part, rtol=1e-12, atol=1e-12)


def test_a_position_without_gradient_is_no_division_by_zero():
    (affine,) = some_affines(4, 2, 1, [(1, 3, 3)])
    affine.slopes.zero_()
    parts = clipped_sum([affine], 2, 1.0)
    assert all(not part.any() for part in parts.values())
