"""Parameters: hard bounds, and joint invariants that single bounds cannot give."""

import pytest
from pydantic import ValidationError

from consortium.rehearsal import SMALL
from fedtrade.parameters import SCALE, PrivacyParameters, sha256_json


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 0.0),
        ("sampling_rate", 0.3),
        ("sampling_rate", float("nan")),
        ("noise_multiplier", 0.1),
        ("noise_multiplier", float("inf")),
        ("clip_norm", 0.0),
        ("rounds", 0),
        ("delta", 1e-3),
        ("epsilon_cap", 30.0),
        ("cohort_min", 2),
        ("helpers", 2),
        ("corrupt", 0),
        ("learning_rate", 0.0),
        ("beta1", 1.0),
        ("unknown", 1),
    ],
)
def test_a_value_out_of_bounds_never_becomes_parameters(field, value):
    with pytest.raises(ValidationError):
        PrivacyParameters.model_validate({**SMALL.model_dump(), field: value})


@pytest.mark.parametrize(
    ("update", "why"),
    [
        ({"helpers": 4, "corrupt": 2}, "cannot stand"),
        ({"cohort_min": 3, "corrupt": 2}, "hides nobody"),
    ],
)
def test_values_within_bounds_may_be_jointly_absurd(update, why):
    with pytest.raises(ValidationError, match=why):
        PrivacyParameters.model_validate({**SMALL.model_dump(), **update})


def test_the_ring_holds_all_batches_and_the_noise():
    loudest = PrivacyParameters.model_validate({**SMALL.model_dump(), "noise_multiplier": 64.0})
    sigma = loudest.noise_multiplier * SCALE
    assert loudest.batch_max * SCALE + 12 * sigma < 2**31


def test_rounding_is_paid_for():
    assert SMALL.effective_noise_multiplier(50_000) < SMALL.noise_multiplier
    assert SMALL.effective_noise_multiplier(50_000) > 0.996 * SMALL.noise_multiplier


def test_canonical_json_does_not_depend_on_order():
    assert sha256_json({"a": 1, "b": [1.5]}) == sha256_json({"b": [1.5], "a": 1})
