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
    summary,
)
from fedtrade.dashboard.leakage_page import render


def audit_row(f_dp=1.0, claimed=3.0, fault=False, name="noise as agreed"):
    return AuditRow(
        name=name,
        noise_multiplier=10.0,
        rounds=100,
        canaries=1_600,
        dimension=9_620,
        guesses=320,
        right=250,
        one_run=0.5,
        f_dp=f_dp,
        claimed=claimed,
        fault=fault,
        seconds=1.0,
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
        conclusions=conclude(audits, inversions),
        standins=list(standins),
    )


GOOD = (audit_row(), audit_row(4.0, fault=True, name="half the noise"))


@given(st.floats(0, 20), st.floats(0, 20), st.booleans())
def test_a_run_fails_exactly_when_it_shows_more_than_is_claimed(shown, claimed, fault):
    row = audit_row(shown, claimed, fault)
    assert row.verdict == ("FAIL" if max(shown, 0.5) > claimed else "PASS")
    assert report([row]).passed == (fault or row.verdict == "PASS")


def test_the_sentences_of_a_good_audit():
    first, second = conclude(GOOD, [])
    assert "no leak beyond the promise" in first
    assert "caught the controls" in second


def test_a_leak_is_said_to_be_one():
    bad = [audit_row(5.0)]
    assert "proves that more leaks than was promised" in conclude(bad, [])[0]
    assert not report(bad).passed


def test_a_control_that_was_missed_is_not_hidden():
    text = " ".join(conclude([audit_row(), audit_row(1.0, fault=True, name="half")], []))
    assert "control with half was not caught" in text


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
    for text in (*OBSERVED.values(), "half the noise", "Stand-ins"):
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
    assert len(read["limits"]) >= 5


def test_the_summary_names_each_run():
    lines = summary(report(GOOD)).split("\n")
    assert lines[0].startswith("PASS  noise as agreed")
    assert lines[1].startswith("FAIL  half the noise")


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="extra"):
        AuditRow(**{**audit_row().model_dump(exclude={"verdict"}), "verdict": "PASS"})
