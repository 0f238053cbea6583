"""The coordinator's key: private on disk, never overwritten, never serialised."""

import copy
import pickle

import pytest

from fedtrade.errors import BadInput
from fedtrade.protocol import recover
from server.keys import KEY_FILE, CoordinatorKeys, KeyWithheld


def test_a_key_is_written_once_private_and_read_back(tmp_path):
    made = CoordinatorKeys.create(tmp_path)
    path = tmp_path / KEY_FILE
    assert path.stat().st_mode & 0o077 == 0
    assert CoordinatorKeys.load(tmp_path).address == made.address
    with pytest.raises(BadInput, match="cannot be written"):
        CoordinatorKeys.create(tmp_path)
    path.chmod(0o640)
    with pytest.raises(BadInput, match="others can read"):
        CoordinatorKeys.load(tmp_path)
    path.chmod(0o600)
    path.write_text("hello")
    with pytest.raises(BadInput, match="no key file"):
        CoordinatorKeys.load(tmp_path)
    with pytest.raises(BadInput, match="no key can be read"):
        CoordinatorKeys.load(tmp_path / "elsewhere")


def test_a_signature_is_its_addresss():
    keys = CoordinatorKeys.ephemeral()
    assert recover(b"d" * 32, keys.sign_digest(b"d" * 32)) == keys.address.lower()


def test_it_shows_its_address_only_and_cannot_be_copied():
    keys = CoordinatorKeys.ephemeral()
    assert repr(keys) == f"CoordinatorKeys({keys.address})"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(KeyWithheld):
            attempt(keys)
