"""The coordinator's settings: the template is good, every field is in it, roots are consistent."""

import re
from typing import get_args

import pytest
from pydantic import BaseModel

from fedtrade.errors import BadInput
from server.settings import COORDINATOR_TEMPLATE, CoordinatorSettings


def written(tmp_path, text):
    path = tmp_path / "coordinator.toml"
    path.write_text(text)
    return path


def chainless(text=COORDINATOR_TEMPLATE):
    """The template for a consortium without a chain."""
    keys = ', signer = "0x{0:040x}", x25519 = "{0:064x}" }}'
    for seat in range(1, 5):
        text = re.sub(rf"(\{{ id = {seat}[^}}]*?) \}}", r"\1" + keys.format(seat), text)
    text = text.replace('deployment = "deployment.json"', "#")
    return text.replace('agreement = "chain"', 'agreement = "certificate"')


def test_the_template_is_good(tmp_path):
    settings = CoordinatorSettings.load(written(tmp_path, COORDINATOR_TEMPLATE))
    assert settings.release_folder == tmp_path / "releases" / "release-1"
    assert settings.tls == tmp_path / "tls"
    assert len(settings.release.members) == 4
    assert settings.superlink is None
    assert settings.release.parameters.update_norm_max is None


def test_what_is_commented_out_is_good_too(tmp_path):
    text = COORDINATOR_TEMPLATE
    for line in ("[superlink]", "gate_host", "gate_port", "port = 0", "node_keys", "bucket_min"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    settings = CoordinatorSettings.load(written(tmp_path, text))
    assert settings.superlink.node_keys == (tmp_path / "nodes" / "1.pub",)
    assert settings.release.parameters.bucket_min == 3


def test_without_a_deployment_every_seat_has_its_keys(tmp_path):
    settings = CoordinatorSettings.load(written(tmp_path, chainless()))
    assert settings.deployment is None
    assert settings.release.helpers[2].signer == f"0x{3:040x}"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("deployment", "deploymnt", "deploymnt"),
        ('deployment = "deployment.json"', "#", "signer and x25519"),
        ("{ id = 1 }", '{ id = 1, signer = "0x' + "ab" * 20 + '" }', "leave signer"),
        ("noise_multiplier = 1.2", "noise_multiplier = 0.1", "noise_multiplier"),
        ("corrupt = 1", "corrupt = 2", "helpers"),
        ("port = 9443", "port = 65536", "channel.port"),
        ("version = 1", "version = 0", "release.version"),
        ("round_timeout_s = 60.0", "round_timeout_s = 0", "round_timeout_s"),
        ("{ id = 1, positions = 100 }", "{ id = 1, positions = 0 }", "positions"),
        ("rounds = 100", "rounds = 100\nskip_noise = true", "skip_noise"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, before, after, said):
    assert before in COORDINATOR_TEMPLATE
    with pytest.raises(BadInput, match=said):
        CoordinatorSettings.load(written(tmp_path, COORDINATOR_TEMPLATE.replace(before, after, 1)))


def test_without_a_chain_nothing_but_a_certificate_makes_a_manifest_final(tmp_path):
    text = chainless().replace('agreement = "certificate"', 'agreement = "chain"')
    with pytest.raises(BadInput, match="certificate"):
        CoordinatorSettings.load(written(tmp_path, text))


def test_the_template_names_every_field():
    def names(kind):
        found = set(kind.model_fields)
        for field in kind.model_fields.values():
            inner = (field.annotation, *get_args(field.annotation))
            for part in (*inner, *(p for i in inner for p in get_args(i))):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    found |= names(part)
        return found

    assert {"positions", "noise_multiplier", "gate_port"} <= names(CoordinatorSettings)
    for name in names(CoordinatorSettings):
        assert re.search(
            rf"(^|# |\[|\[release\.|{{ |, ){name}( =|\])", COORDINATOR_TEMPLATE, re.M
        ) or (name in ("signer", "x25519") and f"{name} = " in COORDINATOR_TEMPLATE), name
