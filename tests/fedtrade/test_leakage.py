"""The leakage report: verdicts and sentences follow from the figures, and the page is safe."""

import json
import re
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.dashboard.leakage import (
    OBSERVED,
    AuditRow,
    InversionRow,
    LeakageReport,
    Promise,
    conclude,
    failure,
    summary,
)
from fedtrade.dashboard.leakage_page import render


def audit_row(f_dp=1.0, claimed=3.0, portion=1.0, name="noise as agreed", **rest):
    found = 10.0 * portion
    return AuditRow(
        **{
            "name": name,
            "noise_multiplier": 10.0,
            "portion": portion,
            "rounds": 100,
            "canaries": 1_600,
            "dimension": 9_620,
            "guesses": 320,
            "right": 250,
            "one_run": 0.5,
            "f_dp": f_dp,
            "claimed": claimed,
            "noise": found,
            "noise_low": 0.99 * found,
            "noise_high": 1.01 * found,
            "noise_samples": 962_000,
            "shape": 0.4,
            "repeats": 0.6,
            "odd": False,
            "seconds": 1.25,
            **rest,
        }
    )


def inversion_row(observed="alone", positions=4, attack="matching", error=0.1, better=True):
    return InversionRow(
        observed=observed,
        positions=positions,
        attack=attack,
        scenes=12,
        error=error,
        error_low=error - 0.05,
        error_high=error + 0.05,
        prior_error=1.0,
        recovered=0.9,
        recovered_low=0.8,
        recovered_high=1.0,
        prior_recovered=0.2,
        control_error=1.1,
        better=better,
    )


def report(audits, inversions=(), standins=("canaries",)):
    promise = Promise(
        sampling_rate=0.1,
        noise_multiplier=1.75,
        rounds=120,
        rdp=3.9,
        pld=3.5,
        delta=1e-6,
        unit="position lifecycle",
        adjacency="zero-out",
    )
    return LeakageReport(
        title="Leakage report",
        subtitle="test",
        promise=promise,
        audits=list(audits),
        inversions=list(inversions),
        inversions_seconds=3.5,
        conclusions=conclude(audits, inversions),
        standins=list(standins),
    )


GOOD = (audit_row(), audit_row(4.0, portion=0.5, name="half the noise"))


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0, 20), st.booleans(), st.booleans())
def test_a_run_fails_exactly_when_a_test_does(shown, claimed, high, odd, fault):
    row = audit_row(shown, claimed, 0.5 if fault else 1.0, noise_high=high, odd=odd)
    leaks, weak = max(shown, 0.5) > claimed, odd or high < 10.0
    assert row.guesses_verdict == ("FAIL" if leaks else "PASS")
    assert row.noise_verdict == ("FAIL" if weak else "PASS")
    assert row.verdict == ("FAIL" if leaks or weak else "PASS")
    assert report([row]).passed == (fault or row.verdict == "PASS")
    assert (failure([row]) == "") == (fault or row.verdict == "PASS")


def test_the_sentences_of_a_good_audit():
    first, second, third = conclude(GOOD, [])
    assert "no leak beyond the promise" in first
    assert "z = 10.0 (9.9 to 10.1), 10 promised: no weaker" in second
    assert "half the noise was caught by the guesses (ε ≥ 4.00) and the noise (z = 5.00)." in third


def test_a_leak_is_said_to_be_one():
    bad = [audit_row(5.0)]
    assert "proves that more leaks than was promised" in conclude(bad, [])[0]
    assert failure(bad) == conclude(bad, [])[0]
    assert not report(bad).passed


def test_weak_noise_is_said_to_be_weak_even_where_nothing_else_shows():
    bad = [audit_row(noise=8.2, noise_low=8.1, noise_high=8.3)]
    assert failure(bad) == conclude(bad, [])[1]
    assert "z = 8.2 (8.1 to 8.3), 10 promised: it is too weak" in failure(bad)


def test_noise_of_another_kind_is_said_to_be_so():
    assert "not the Gaussian, new in each round" in failure([audit_row(odd=True)])


def test_a_control_that_was_missed_is_not_hidden():
    half = audit_row(1.0, portion=0.5, name="half", noise_high=12.0)
    text = " ".join(conclude([audit_row(), half], []))
    assert "control with half was not caught" in text


def test_a_control_that_one_test_missed_is_not_hidden():
    told = conclude([audit_row(1.0, portion=0.5, name="half")], [])[-1]
    assert "caught by the noise (z = 5.00), not by the guesses (ε ≥ 1.00)" in told


def test_what_attacks_came_to_is_said_for_each_observation():
    rows = [
        inversion_row(),
        inversion_row(positions=8, error=0.3),
        inversion_row("noise", error=1.02, better=False),
    ]
    told = conclude([], rows)
    assert len(told) == 2
    assert "positions can be read back. With 8 positions" in told[0]
    assert "no attack did better than the marginals" in told[1]


def test_the_page_is_whole_and_loads_nothing():
    rows = [inversion_row(kind, n) for kind in OBSERVED for n in (1, 4)]
    page = render(report(GOOD, rows))
    assert "default-src 'none'" in page
    assert page.count('class="plot"') == 2
    for text in (*OBSERVED.values(), "half the noise", "Stand-ins", "10.0 (9.9 to 10.1)", "3.5 s"):
        assert escape(text) in page
    assert not re.search(r"<(link|img|iframe)|src=[\"']http", page.split("<script>")[0])
    assert render(report(GOOD, rows)) == page


def test_text_from_outside_cannot_become_markup():
    evil = "<script>alert(1)</script>"
    page = render(report([audit_row(name=evil)], [inversion_row()], standins=(evil,)))
    assert evil not in page
    assert "&lt;script&gt;" in page


def test_an_empty_report_says_so():
    assert "No attack was run" in render(report([]))


def test_the_json_holds_verdicts_and_limits():
    read = json.loads(report(GOOD).model_dump_json())
    assert [row["verdict"] for row in read["audits"]] == ["PASS", "FAIL"]
    assert read["passed"] is True
    assert read["audits"][1]["noise_verdict"] == "FAIL"
    assert len(read["limits"]) >= 5


def test_the_summary_names_each_run():
    lines = summary(report(GOOD)).split("\n")
    assert lines[0].startswith("PASS  noise as agreed")
    assert lines[1].startswith("FAIL  half the noise")
    assert all("1.2 s" in line for line in lines[:2])


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="extra"):
        AuditRow(**audit_row().model_dump())  # verdicts are computed, never given
