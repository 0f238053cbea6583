"""The audit of real rounds: it passes what is right and catches what is not."""

import ast
import json
from pathlib import Path

import coincurve
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import clients.member
from clients.helper import Helper
from clients.keys import MemberKeys
from consortium import audit
from fedtrade.dashboard import leakage
from fedtrade.errors import BadInput
from fedtrade.privacy.audit import CONFIDENCE, NOISE_LEVEL

DELTA = 1e-6
SMALL = (3, 3_000)
"""Rounds and canaries: at z = 2 the guesses find half the noise in 199 of 200 runs (simulated)."""


@pytest.fixture
def draw(monkeypatch):
    """A generator, and keys out of it: so noise, masks and verdicts are the same in every run."""
    source = np.random.default_rng(11)

    def keys():
        signing, exchange = source.bytes(32), source.bytes(32)
        return MemberKeys(
            coincurve.PrivateKey(signing), X25519PrivateKey.from_private_bytes(exchange)
        )

    monkeypatch.setattr(MemberKeys, "ephemeral", keys)
    return source


def test_right_noise_passes_and_the_canaries_are_seen(draw):
    row = audit.one_run("right", 2.0, 1.0, DELTA, draw, SMALL)
    assert (row.guesses_verdict, row.noise_verdict, row.fault) == ("PASS", "PASS", False)
    assert (row.rounds, row.canaries) == SMALL
    assert row.right > 0.7 * row.guesses  # it does see the canaries, through the noise
    assert row.noise_low < 2.0 < row.noise_high
    assert row.noise_samples == 3 * row.dimension


def test_half_the_noise_is_caught_by_both(draw):
    row = audit.one_run("half", 2.0, 0.5, DELTA, draw, SMALL)
    assert (row.guesses_verdict, row.noise_verdict, row.fault) == ("FAIL", "FAIL", True)
    assert row.noise_low < 1.0 < row.noise_high
    assert not row.odd  # it is weak, but Gaussian and new in each round


def test_helpers_without_noise_are_caught_by_both(draw):
    row = audit.one_run("none", 20.0, 0.0, DELTA, draw, SMALL)
    assert row.right > 0.9 * row.guesses
    assert (row.guesses_verdict, row.noise_verdict) == ("FAIL", "FAIL")
    assert row.noise_high < 1e-4  # nothing but rounding: the gradients are known exactly


def test_one_helper_that_forgets_its_noise_shows_in_the_noise(draw, monkeypatch):
    """A third of the variance is gone: with a bad helper more, less is left than was promised."""
    noise = Helper._noise

    def forgetful(self, content, group, responders):
        return noise(self, content, group, responders) * (self.index != 0)

    monkeypatch.setattr(Helper, "_noise", forgetful)
    row = audit.one_run("one", 20.0, 1.0, DELTA, draw, SMALL)
    assert row.noise == pytest.approx(20.0 * (2 / 3) ** 0.5, rel=0.03)
    assert (row.noise_verdict, row.odd) == ("FAIL", False)


def test_noise_that_comes_again_shows(draw, monkeypatch):
    """Derived from anything but the round: whoever subtracts two rounds is rid of it."""
    noise = Helper._noise
    monkeypatch.setattr(Helper, "_noise", lambda self, content, *rest: noise(self, b"", *rest))
    row = audit.one_run("again", 20.0, 1.0, DELTA, draw, SMALL)
    assert row.noise_high > 20.0
    assert row.odd
    assert row.verdict == "FAIL"


def test_members_that_clip_at_the_wrong_norm_show(draw, monkeypatch):
    """Each position weighs double: a part of the sums comes again that no gradient accounts for."""
    rightly = clients.member.clipped_gradient_sum

    def doubled(arrays, batch, clip_norm):
        return rightly(arrays, batch, 2 * clip_norm)

    monkeypatch.setattr(clients.member, "clipped_gradient_sum", doubled)
    row = audit.one_run("longer", 2.0, 1.0, DELTA, draw, SMALL)
    assert row.repeats < NOISE_LEVEL
    assert row.noise_verdict == "FAIL"


def test_nobody_but_the_audit_knows_faint_helpers():
    root = Path(audit.__file__).parents[1]
    named = [
        path.relative_to(root).as_posix()
        for package in ("fedtrade", "clients", "server", "consortium")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if getattr(node, "id", getattr(node, "name", getattr(node, "attr", ""))) == "FaintHelper"
    ]
    assert set(named) == {"consortium/audit.py"}


@pytest.mark.parametrize("z", [0.5, 1.75, 10.0, 30.0, 64.0])
def test_the_size_gives_the_guesses_their_power(z):
    rounds, canaries = audit.audit_size(z)
    assert audit.ROUNDS_LEAST <= rounds <= audit.ROUNDS_MAX
    assert audit.CANARIES_LEAST <= canaries <= audit.CANARIES_MOST
    assert rounds * canaries >= audit.POWER * 1.5 * z**2


def test_the_command_leaves_both_reports_and_says_what_it_found(
    draw, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(audit, "attack", lambda parameters, draw: ([], ()))
    monkeypatch.setattr(audit, "audit_size", lambda z: SMALL)
    audit.main(["--out", str(tmp_path), "--noise-multiplier", "2", "--seed", "5"])
    read = json.loads((tmp_path / "leakage.json").read_text())
    assert [row["verdict"] for row in read["audits"]] == ["PASS", "FAIL", "FAIL"]
    assert [row["portion"] for row in read["audits"]] == [1.0, 0.5, 0.0]
    assert "no noise" in (tmp_path / "leakage.html").read_text()
    told = capsys.readouterr().out
    assert all(row["name"] in told and f"{row['seconds']:.1f} s" in told for row in read["audits"])


def test_a_leak_ends_the_command_with_a_fault(draw, tmp_path, monkeypatch):
    noise = Helper._noise
    monkeypatch.setattr(Helper, "_noise", lambda self, *of: noise(self, *of) // 2)
    monkeypatch.setattr(audit, "attack", lambda parameters, draw: ([], ()))
    monkeypatch.setattr(audit, "audit_size", lambda z: SMALL)
    with pytest.raises(audit.AuditFailed, match="too weak"):
        audit.main(["--out", str(tmp_path), "--noise-multiplier", "20", "--seed", "5"])


def test_options_out_of_bounds_are_refused(tmp_path):
    with pytest.raises(BadInput, match="less than or equal"):
        audit.main(["--out", str(tmp_path), "--delta", "0.1"])


def test_the_report_states_the_confidence_that_the_tests_have():
    assert f"{CONFIDENCE:.0%}".replace("%", " %") == leakage.CONFIDENCE
    assert NOISE_LEVEL == 0.001  # which the page explains in words
