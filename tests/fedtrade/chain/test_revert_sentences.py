"""Sentences and compiled ABI name the same errors with the same arguments."""

import string

from fedtrade.chain.contracts import known_errors
from fedtrade.chain.revert_sentences import SENTENCES

OURS = (
    "BreakerModifier_",
    "Consortium",
    "LocalPriceFeed_",
    "Membership_",
    "ModelRegistry_",
    "Parameter",
    "Registry",
)
SHAPES = {shape.name: shape for shape in known_errors().values()}


def test_every_error_of_ours_has_a_sentence():
    assert {name for name in SHAPES if name.startswith(OURS)} <= SENTENCES.keys()


def test_no_sentence_is_left_over():
    assert SENTENCES.keys() <= SHAPES.keys()


def test_sentences_use_the_errors_own_arguments():
    for name, sentence in SENTENCES.items():
        used = {field for _, field, _, _ in string.Formatter().parse(sentence) if field}
        assert used <= {argument for argument, _ in SHAPES[name].arguments}, name
