"""Settings files: every mistake named at once, no value quoted, nothing unknown let in."""

from typing import Annotated

import pytest
from pydantic import Field

from fedtrade.errors import BadInput
from fedtrade.settings import SETTINGS_MAX_BYTES, Beside, Strict, read_settings


class Section(Strict):
    number: Annotated[int, Field(ge=1)] = 1


class File(Strict):
    folder: Beside
    section: Section = Section()
    many: tuple[Section, ...] = ()


def written(tmp_path, text):
    path = tmp_path / "file.toml"
    path.write_text(text)
    return path


def test_paths_start_at_the_files_own_folder(tmp_path):
    below = tmp_path / "deep"
    below.mkdir()
    path = written(below, 'folder = "../here"')
    assert read_settings(File, path).folder == tmp_path / "here"
    assert read_settings(File, written(below, 'folder = "/there"')).folder.as_posix() == "/there"


def test_all_mistakes_are_named_and_no_value_is(tmp_path):
    path = written(tmp_path, 'secret = "hunter2"\n[section]\nnumber = -77\n')
    with pytest.raises(BadInput) as caught:
        read_settings(File, path)
    said = str(caught.value)
    for word in ("folder", "secret", "section.number", str(path)):
        assert word in said
    assert "hunter2" not in said
    assert "77" not in said.replace(str(path), "")
    assert caught.value.__cause__ is None  # a cause would quote the input


def test_a_long_list_of_mistakes_is_cut(tmp_path):
    rows = ", ".join("{ number = 0 }" for _ in range(30))
    with pytest.raises(BadInput, match="and 10 more"):
        read_settings(File, written(tmp_path, f'folder = "."\nmany = [{rows}]'))


@pytest.mark.parametrize(("text", "said"), [("folder = ", "TOML"), ('folder = "\xff"', "TOML")])
def test_what_is_no_toml_is_said(tmp_path, text, said):
    path = tmp_path / "file.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=said):
        read_settings(File, path)


def test_a_file_of_any_size_is_not_read(tmp_path):
    path = written(tmp_path, 'folder = "."\n' + "#" * SETTINGS_MAX_BYTES)
    with pytest.raises(BadInput, match="over"):
        read_settings(File, path)
    with pytest.raises(BadInput, match="cannot read"):
        read_settings(File, tmp_path)
