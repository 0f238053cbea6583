"""The installed ClientApp: it opens the member's own desk, and tells the coordinator names only."""

import tomllib

import pytest
import tomli_w
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients import flower
from clients.app import RECORD
from clients.flower import NotOpened, add_release, member_settings, open_desk
from clients.settings import MEMBER_TEMPLATE
from clients.supernode import SETTINGS_VARIABLE
from consortium.grid import LocalGrid
from fedtrade.errors import Stale

SECRET = "a text that quotes a position"


class Behind(Stale):
    pass


def ask(app, kind, run_config=None):
    """One question to a node; gives the reply's record."""
    grid = LocalGrid(app, 1)
    for context in grid._contexts.values():
        context.run_config = run_config or {}
    message = Message(RecordDict({RECORD: ConfigRecord({"body": b""})}), 2, f"query.{kind}")
    try:
        (reply,) = grid.send_and_receive([message], timeout=30)
    finally:
        grid.close()
    assert not reply.has_error()
    return dict(reply.content.config_records[RECORD])


@pytest.fixture
def settings_file(tmp_path):
    settings = tomllib.loads(MEMBER_TEMPLATE)
    settings["coordinator"] |= {"address": f"0x{1:040x}", "url": "https://127.0.0.1:1"}
    settings["home_chain"] |= {"membership": f"0x{2:040x}", "registry": f"0x{3:040x}"}
    path = tmp_path / "member.toml"
    path.write_text(tomli_w.dumps(settings))
    return path


def app_with(serve):
    app = ClientApp()
    add_release(app, serve)
    return app


def test_a_node_stays_for_a_release_and_says_when_it_is_over():
    order = []
    app = app_with(lambda: order.append("served"))
    assert ask(app, "release") == {"body": b"over"}
    assert order == ["served"]


@pytest.mark.parametrize(
    ("error", "name"),
    [(Behind(SECRET), b"Behind"), (ValueError(SECRET), b"Fault"), (KeyError(SECRET), b"Fault")],
)
def test_a_release_that_breaks_off_is_told_by_name(error, name):
    def serve():
        raise error

    assert ask(app_with(serve), "release") == {"refused": name}


def test_a_roll_call_needs_no_desk(monkeypatch):
    monkeypatch.delenv(SETTINGS_VARIABLE, raising=False)
    assert set(ask(flower.app, "installed")) == {"body"}


@pytest.mark.parametrize("kind", ["hello", "upload", "endorse", "ready", "answer", "release"])
def test_without_settings_every_question_is_refused_by_name(monkeypatch, kind):
    monkeypatch.delenv(SETTINGS_VARIABLE, raising=False)
    assert ask(flower.app, kind) == {"refused": b"NotOpened"}


def test_a_desk_that_does_not_open_tells_its_own_log_and_nobody_else(
    monkeypatch, settings_file, caplog
):
    monkeypatch.setenv(SETTINGS_VARIABLE, str(settings_file))
    assert ask(flower.app, "hello") == {"refused": b"NotOpened"}  # there are no keys
    assert any("keys.json" in record.getMessage() for record in caplog.records)
    assert str(settings_file.parent) not in str(NotOpened())


def test_settings_come_from_the_environment_never_from_the_run(
    monkeypatch, settings_file, tmp_path
):
    other = tmp_path / "other.toml"
    other.write_bytes(settings_file.read_bytes().replace(b"member = 1", b"member = 2"))
    monkeypatch.setenv(SETTINGS_VARIABLE, str(settings_file))
    opened = []
    monkeypatch.setattr("clients.desk.Desk.open", lambda settings: opened.append(settings))
    run_config = {"settings": str(other), SETTINGS_VARIABLE: str(other), "floor.epsilon_limit": 99}
    context = Context(
        run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config=run_config
    )
    open_desk(context)
    assert [settings.seats.member for settings in opened] == [1]
    assert opened[0] == member_settings()
