"""A bundle carries no code: every other zip is refused, whatever makes it other."""

import hashlib
import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.bundle import (
    BUNDLE_BYTES_MAX,
    LISTING,
    ForeignBundle,
    bundle_files,
    check_bundle,
    check_files,
)

VERSION = "1.2.3"


def packed(files, listing=None, **options):
    """A zip as Flower packs it: the files, then the list of them."""
    if listing is None:
        listing = listed(files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(LISTING), listing)
    return buffer.getvalue()


def listed(files):
    order = sorted(files, key=lambda name: (name != "pyproject.toml", name))
    return "\n".join(
        f"{name},{hashlib.sha256(files[name]).hexdigest()},{8 * len(files[name])}" for name in order
    )


GOOD = bundle_files(VERSION)


def refused(content, version=VERSION):
    with pytest.raises(ForeignBundle) as caught:
        check_bundle(content, version)
    assert caught.value.digest == hashlib.sha256(content).hexdigest()
    assert caught.value.digest in str(caught.value)
    return caught.value


def test_ours_is_accepted_however_it_is_packed():
    for level in range(10):
        content = packed(GOOD, compresslevel=level)
        assert check_bundle(content, VERSION) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "clients/__init__.py",
        "clients/flower.py",
        "json.py",
        "sitecustomize.py",
        "x.pth",
        "clients.zip",
        "_ssl.cpython-311-x86_64-linux-gnu.so",
        "__pycache__/json.cpython-311.pyc",
        "README.md",
        "LICENSE.py",
        "license",
        "pyproject.toml/x.py",
        "./LICENSE",
        "../LICENSE",
        "/LICENSE",
        "clients/",
        ".info/other",
        "uv.lock",
    ],
)
def test_one_more_file_is_refused_and_named(name):
    error = refused(packed(GOOD | {name: b"x = 1"}))
    assert error.names == (name,)
    assert name in str(error)


def test_a_missing_file_is_refused():
    for gone in GOOD:
        refused(packed({name: data for name, data in GOOD.items() if name != gone}))


def test_an_older_or_newer_bundle_is_refused():
    for other in ("1.2.2", "1.2.4", "0.0.1"):
        assert VERSION in refused(packed(bundle_files(other))).problem


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        (b"clients.flower:app", b"antigravity:app"),
        (b"clients.flower:app", b"clients.app:make_app"),
        (b"server.flower:app", b"evil:app"),
        (b'"flwr>=1.41,<1.42"', b'"flwr>=1.41,<1.42", "evil"'),
        (b"[tool.flwr.app.config]", b'[tool.flwr.app.config]\nfloor = "0"'),
        (b'publisher = "fedtrade"', b'publisher = "fedtrad3"'),
        (b"[project]", b'[build-system]\nrequires = ["evil"]\n\n[project]'),
    ],
)
def test_one_other_word_is_refused(what, instead):
    changed = GOOD["pyproject.toml"].replace(what, instead)
    assert changed != GOOD["pyproject.toml"]
    refused(packed(GOOD | {"pyproject.toml": changed}))


def test_another_licence_is_refused():
    refused(packed(GOOD | {"LICENSE": GOOD["LICENSE"] + b" "}))


def test_a_listing_that_asks_about_other_files_is_refused():
    """Flower would look up the path on the member's disk and say whether the hash fits."""
    question = f"../../../etc/hostname,{'0' * 64},8"
    refused(packed(GOOD, listing=listed(GOOD) + "\n" + question))
    refused(packed(GOOD, listing=question))
    refused(packed(GOOD, listing=""))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused():
    buffer = io.BytesIO(packed(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("pyproject.toml", GOOD["pyproject.toml"].replace(b"flower", b"evil"))
    assert "twice" in refused(buffer.getvalue()).problem


def test_a_bundle_without_a_listing_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
    refused(buffer.getvalue())


def test_a_name_with_a_hidden_end_is_refused():
    """A zero byte ends a name for Python's zipfile; another reader sees the whole of it."""
    content = packed(GOOD).replace(b"LICENSE", b"LICENS\0")
    refused(content)


def test_a_bomb_is_not_unpacked():
    bomb = packed(GOOD | {"LICENSE": b"\0" * 10**7})
    assert len(bomb) < BUNDLE_BYTES_MAX
    assert refused(bomb).names == ("LICENSE",)


def test_a_large_bundle_is_not_unpacked_but_its_files_are_named():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored, not packed
        archive.writestr("clients/flower.py", b"#" * BUNDLE_BYTES_MAX)
    assert refused(buffer.getvalue()).names == ("clients/flower.py",)
    refused(b"\0" * (BUNDLE_BYTES_MAX + 1))


def test_many_names_are_not_all_shown():
    error = refused(packed(GOOD | {f"m{n:03}.py": b"" for n in range(100)}))
    assert len(error.names) == 100
    assert "and 88 more" in str(error)
    assert len(str(error)) < 1000


@given(st.binary(max_size=300))
def test_bytes_that_are_no_zip_are_refused(content):
    refused(content)


@given(st.data())
def test_a_damaged_bundle_is_refused_or_still_holds_our_files(data):
    """Whatever bytes are changed: a refusal of ours, or contents that are exactly ours."""
    content = bytearray(packed(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_bundle(bytes(content), VERSION)
    except ForeignBundle:
        return
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        assert {name: archive.read(name) for name in GOOD} == GOOD


def test_an_encrypted_or_oddly_packed_file_is_refused():
    content = bytearray(packed(GOOD))
    central = content.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):  # flags: encrypted; method: unknown
        changed = bytearray(content)
        struct.pack_into("<H", changed, central + offset, value)
        refused(bytes(changed))


def test_files_on_a_disk_are_held_to_the_same():
    check_files(GOOD, VERSION, "d")
    for other in ({}, GOOD | {"x.py": b""}, {name: b"" for name in GOOD}):
        with pytest.raises(ForeignBundle):
            check_files(other, VERSION, "d")
