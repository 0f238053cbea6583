"""The installed ServerApp: the roll call, and a release that it holds open, on a grid in process."""

import json
import tomllib
from types import SimpleNamespace

import pytest
import tomli_w

from clients.app import make_app
from clients.desk import Desk
from clients.flower import add_release
from consortium.grid import LocalGrid
from fedtrade.errors import BadInput, Refusal
from server import flower
from server.flower import PURPOSE_VARIABLE, ROLL_FILE, SETTINGS_VARIABLE, ask, roll_call, write_roll
from server.settings import COORDINATOR_TEMPLATE


class Told(Refusal):
    pass


def grid_of(serve, nodes=3, fault=None):
    from flwr.clientapp import ClientApp

    app = ClientApp()
    add_release(app, serve)
    return LocalGrid(app, nodes, fault=fault)


@pytest.fixture
def settings_file(tmp_path):
    path = tmp_path / "coordinator.toml"
    settings = tomllib.loads(COORDINATOR_TEMPLATE)
    settings["release"] |= {"round_timeout_s": 20.0, "release_timeout_s": 20.0}
    path.write_text(tomli_w.dumps(settings))
    return path


def play(monkeypatch, grid, settings_file, purpose):
    monkeypatch.setenv(SETTINGS_VARIABLE, str(settings_file))
    monkeypatch.setenv(PURPOSE_VARIABLE, purpose)
    try:
        flower.main(grid, None)
    finally:
        grid.close()
    return json.loads((settings_file.parent / "releases" / ROLL_FILE).read_text())


def test_a_roll_call_does_not_open_the_release(monkeypatch, settings_file):
    served = []
    roll = play(monkeypatch, grid_of(lambda: served.append(1)), settings_file, "roll-call")
    assert len(roll["nodes"]) == 3
    assert roll["took_s"] >= 0
    assert served == []


def test_a_release_is_held_by_every_node_that_answered_the_roll(monkeypatch, settings_file):
    served = []

    def fault(node, message):
        return "drop" if node == 2 else None

    grid = grid_of(lambda: served.append(1), fault=fault)
    roll = play(monkeypatch, grid, settings_file, "channel")
    assert len(roll["nodes"]) == 2
    assert served == [1, 1]


def test_over_messages_the_run_drives_the_release_itself(monkeypatch, settings_file):
    """Roll call, then the whole operation over an exchange whose seats come from the nodes."""
    asked = []

    class Operation:
        def __init__(self, settings, report):
            asked.append(settings.release.number)
            report("rounds", 1, 2)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            asked.append("closed")

        def drive(self, exchange):
            asked.append(exchange("upload", {1: b"announcement"}))
            return SimpleNamespace(artifact_sha256="00")

    desk = Desk({"member": 1})
    monkeypatch.setattr(desk, "act", lambda action, body: body + b" at " + action.encode())
    app = make_app(lambda context: desk)
    add_release(app, lambda: asked.append("channel"))
    monkeypatch.setattr(flower, "Operation", Operation)
    play(monkeypatch, LocalGrid(app, 1), settings_file, "messages")
    assert asked == [1, {1: b"announcement at upload"}, "closed"]


def test_one_node_that_fails_or_refuses_is_dropped_alone(caplog):
    def fault(node, message):
        if node == 2:
            raise RuntimeError("broken")
        return None

    def serve():
        raise Told("a text that stays with the member")

    grid = grid_of(serve, fault=fault)
    try:
        assert sorted(roll_call(grid, 20.0)) == [3, 4]
        assert ask(grid, "query.release", [3, 4], 20.0) == {}
    finally:
        grid.close()
    coordinators = [r.getMessage() for r in caplog.records if r.name == "fedtrade.coordinator"]
    assert "node 2 failed at query.installed" in coordinators
    assert "node 3 refused query.release: Told" in coordinators
    assert not any("stays with the member" in text for text in coordinators)


def test_a_roll_call_is_put_in_place_whole(tmp_path):
    write_roll(tmp_path / "new", {5: "1", 3: "2"}, 1.23456)
    assert json.loads((tmp_path / "new" / ROLL_FILE).read_text()) == {
        "nodes": {"3": "2", "5": "1"},
        "took_s": 1.235,
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == [ROLL_FILE]


@pytest.mark.parametrize("purpose", [None, "", "train"])
def test_a_process_that_was_not_told_its_purpose_does_nothing(monkeypatch, settings_file, purpose):
    monkeypatch.setenv(SETTINGS_VARIABLE, str(settings_file))
    monkeypatch.delenv(PURPOSE_VARIABLE, raising=False)
    if purpose is not None:
        monkeypatch.setenv(PURPOSE_VARIABLE, purpose)
    with pytest.raises(BadInput, match=PURPOSE_VARIABLE):
        flower.main(None, None)
