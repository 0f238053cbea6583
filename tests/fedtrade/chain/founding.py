"""A plan of a deployment, for tests: a consortium of keys on one local chain."""

from __future__ import annotations

from pathlib import Path

from clients.keys import MemberKeys
from fedtrade.chain.plan import PLAN_TEMPLATE

START_S = 1_749_686_400
CHAIN_ID = 31337
GUARDIAN = "0x976EA74026E726554dB657fA54763abd0C3a0aa9"
STEWARD = "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955"


def seat(keys: MemberKeys, roles: str = '"member", "helper"') -> str:
    return (
        f'[[seats]]\naccount = "{keys.address}"\nsigner = "{keys.address}"\n'
        f'x25519 = "0x{keys.x25519_public.hex()}"\nroles = [{roles}]\n'
    )


def plan_text(url: str, members: list[MemberKeys], **replaced: str) -> str:
    """The template as an operator would fill it in. `replaced`: further fields by their names."""
    begin, end = PLAN_TEMPLATE.index("[[seats]]"), PLAN_TEMPLATE.index("[[chains]]")
    seats = "\n".join(seat(keys) for keys in members)
    text = PLAN_TEMPLATE[:begin] + seats + "\n" + PLAN_TEMPLATE[end:]
    fields = {
        "home": '"aster"',
        "name": '"aster"',
        "chain_id": str(CHAIN_ID),
        "rpc_url": f'"{url}"',
        "ws_url": f'"{url.replace("http", "ws")}"',
        "confirmations": "0",
        "guardian": f'"{GUARDIAN}"',
    } | replaced
    lines = text.splitlines()
    for name, value in fields.items():
        places = [
            i for i, line in enumerate(lines) if line.startswith((f"{name} =", f"# {name} ="))
        ]
        assert len(places) == 1, name
        lines[places[0]] = f"{name} = {value}"
    return "\n".join(lines) + "\n"


def write_plan(folder: Path, url: str, members: list[MemberKeys], **replaced: str) -> Path:
    path = folder / "deployment.toml"
    path.write_text(plan_text(url, members, **replaced))
    return path
