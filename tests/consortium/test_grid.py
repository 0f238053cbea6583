"""The in-process grid: Flower's own messages, faults dropped alone, and its one private name."""

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from consortium.rehearsal import rehearse
from server.rounds import RoundAbandoned


def test_the_private_name_of_flower_is_still_there():
    """If this fails, Flower has moved `TaskIdentity`: see consortium/grid.py."""
    from flwr.supercore.task_identity import TaskIdentity

    assert hasattr(TaskIdentity, "__dict__")


def rounds(consortium, fault, count=1):
    reports = []

    def run(exchange):
        reports.extend(consortium.release.run_round(exchange) for _ in range(count))

    consortium.over_flower(run, fault=fault)
    return reports


def test_dropped_failing_and_forged_replies_are_each_left_out_alone(tmp_path):
    consortium = rehearse(tmp_path, members=8)

    def fault(node, message):
        if message.metadata.message_type != "query.upload":
            return None
        if node == 2:
            return "drop"
        if node == 3:
            raise RuntimeError("a member's machine fails")
        if node == 4:
            content = RecordDict({"fedtrade": ConfigRecord({"body": b"forged"})})
            return Message(content, reply_to=message)
        if node == 5:
            return Message(RecordDict({"x": ConfigRecord({"y": 1})}), reply_to=message)
        return None

    report = rounds(consortium, fault)[0]
    assert report.cohort == (5, 6, 7, 8)  # node n holds seat n - 1
    consortium.close()


def test_no_text_of_an_exception_reaches_the_coordinator(tmp_path, caplog):
    consortium = rehearse(tmp_path)
    secret = "position 4711 of acme"

    def fail(_):
        raise RuntimeError(secret)

    for desk in consortium.desks.values():
        desk.member.upload = fail
    seen = []

    def spy(exchange):
        seen.append(exchange("upload", {1: b"x"}))
        consortium.release.run_round(exchange)

    with pytest.raises(RoundAbandoned) as caught:
        consortium.over_flower(spy)
    assert seen == [{}]
    assert secret not in str(caught.value)
    coordinators = [r for r in caplog.records if r.name == "fedtrade.coordinator"]
    assert coordinators
    assert all(secret not in r.getMessage() for r in coordinators)
    consortium.close()
