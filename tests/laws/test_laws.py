"""The laws of ARCHITECTURE.md, each as a test: what must *not* be there."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fedtrade", "clients", "server", "consortium")
SHELL_ROOMS = (
    "fedtrade/chain",
    "fedtrade/devnet",
    "fedtrade/cli.py",
    "fedtrade/data/commands.py",
    "fedtrade/data/fetching.py",
)
IMPURE = {
    "asyncio",
    "aiohttp",
    "web3",
    "eth_account",
    "flwr",
    "time",
    "random",
    "socket",
    "requests",
    "websockets",
    "http",
    "urllib",
    "threading",
    "subprocess",
    "secrets",
    "datetime",
}
ROOM_RANK = {  # an import may only point to a strictly lower rank, or stay in its room
    "errors": 0,
    "console": 1,
    "market": 1,
    "parameters": 1,
    "typed_data": 1,
    "settings": 1,
    "artifact": 1,
    "bundle": 1,
    "protocol": 2,
    "governed": 2,
    "learning": 2,
    "risk": 2,
    "channel": 3,
    "privacy": 3,
    "venues": 3,
    "trading": 3,
    "journal": 3,
    "steering": 3,
    "stewarding": 4,
    "chain": 4,
    "agent": 4,
    "replay": 5,
    "simulation": 5,
    "devnet": 5,
    "data": 5,
    "dashboard": 8,
    "voting": 8,
    "cli": 9,
}


@cache
def modules():
    return [p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]


@cache
def tree(path):
    return ast.parse(path.read_text())


def imports(path, runtime_only=False):
    """(module name, line) of every import, absolute."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(a.name, node.lineno) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(f"{node.module}.{a.name}", node.lineno) for a in node.names]
    return found


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def is_shell(path):
    return any(name_of(path).startswith(room) for room in SHELL_ROOMS)


def room_of(path):
    parts = path.relative_to(ROOT / "fedtrade").parts
    return parts[0].removesuffix(".py")


def test_the_pure_core_opens_no_socket_reads_no_clock_and_draws_no_randomness():
    found = [
        f"{name_of(path)}:{line} {module}"
        for path in modules()
        if name_of(path).startswith("fedtrade/") and not is_shell(path)
        for module, line in imports(path)
        if module.split(".")[0] in IMPURE
        and module != "datetime.UTC"
        and not module.startswith(("datetime.datetime", "datetime.timezone", "datetime.timedelta"))
    ]
    assert found == []


def test_the_pure_core_never_asks_for_the_time():
    """datetime is a type there; `now` and `today` are not to be called."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        if name_of(path).startswith("fedtrade/") and not is_shell(path)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today", "urandom")
    ]
    assert found == []


def test_nobody_imports_across_a_trust_boundary():
    forbidden = {
        "fedtrade": {"clients", "server", "consortium"},
        "clients": {"server", "consortium"},
        "server": {"clients", "consortium"},
        "consortium": set(),
    }
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for path in modules()
        for module, line in imports(path)
        if module.split(".")[0] in forbidden[path.relative_to(ROOT).parts[0]]
    ]
    assert found == []


def test_rooms_import_downwards_only():
    found = []
    for path in modules():
        if path.relative_to(ROOT).parts[0] != "fedtrade" or path.name == "__init__.py":
            continue
        here = room_of(path)
        for module, line in imports(path):
            parts = module.split(".")
            if parts[0] != "fedtrade" or len(parts) < 2 or parts[1] == here:
                continue
            if ROOM_RANK[parts[1]] >= ROOM_RANK[here]:
                found.append(f"{name_of(path)}:{line} {here} -> {parts[1]}")
    assert found == []


HEAVY = {
    "torch": {
        "fedtrade/learning/inversion.py",
        "fedtrade/learning/kernels.py",
        "fedtrade/learning/network.py",
        "fedtrade/learning/opacus_engine.py",
        "fedtrade/learning/pretraining.py",
        "fedtrade/learning/sequences.py",
        "fedtrade/learning/training.py",
        "consortium/demo.py",
    },
    "opacus": {"fedtrade/learning/opacus_engine.py", "fedtrade/privacy/accounting.py"},
    "flwr": {
        "clients/app.py",
        "clients/flower.py",
        "clients/guard/__main__.py",
        "server/app.py",
        "server/flower.py",
        "consortium/grid.py",
    },
    "tenseal": {"fedtrade/privacy/threshold.py"},
}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_stay_in_their_rooms(library):
    users = {
        name_of(path)
        for path in modules()
        for module, _ in imports(path)
        if module.split(".")[0] == library
    }
    assert users <= HEAVY[library]


def test_no_pickle_no_eval_no_import_by_name():
    banned_modules = {"pickle", "cPickle", "dill", "shelve", "marshal", "importlib", "joblib"}
    banned_calls = {"eval", "exec", "__import__", "compile"}
    found = []
    for path in modules():
        for module, line in imports(path):
            if module.split(".")[0] in banned_modules and not module.startswith(
                ("importlib.resources", "importlib.metadata")
            ):
                found.append(f"{name_of(path)}:{line} {module}")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                f = node.func
                if isinstance(f, ast.Name) and f.id in banned_calls:
                    found.append(f"{name_of(path)}:{node.lineno} {f.id}")
                if (
                    isinstance(f, ast.Attribute)
                    and f.attr == "load"
                    and isinstance(f.value, ast.Name)
                    and f.value.id == "torch"
                ):
                    found.append(f"{name_of(path)}:{node.lineno} torch.load")
                allows = [k for k in node.keywords if k.arg == "allow_pickle"]
                if any(
                    not (isinstance(k.value, ast.Constant) and not k.value.value) for k in allows
                ):
                    found.append(f"{name_of(path)}:{node.lineno} allow_pickle")
    assert found == []


def test_private_keys_are_made_in_the_two_key_modules_only():
    """A private key object can only come from these constructors."""
    makers = {"PrivateKey", "from_key", "from_private_bytes", "from_hex", "from_mnemonic"}
    allowed = {
        "clients/keys.py",
        "server/keys.py",
        "clients/member.py",  # the key pair of one upload's boxes, gone when it is sealed
    }
    found = [
        f"{name_of(path)}:{node.lineno} {node.func.attr}"
        for path in modules()
        if name_of(path) not in allowed and not name_of(path).startswith("fedtrade/devnet/")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in makers
    ]
    assert found == []


def test_no_option_disables_a_breaker():
    """No parameter, field or flag anywhere in the agent's path can switch a check off."""
    words = ("bypass", "disable", "skip_check", "no_check", "unsafe", "force", "override")
    found = []
    for path in modules():
        if not name_of(path).startswith(("fedtrade/risk", "fedtrade/agent", "clients/")):
            continue
        for node in ast.walk(tree(path)):
            name = getattr(node, "arg", None) if isinstance(node, ast.arg) else None
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            if name and any(w in name.lower() for w in words):
                found.append(f"{name_of(path)}:{node.lineno} {name}")
    assert found == []


def test_no_swallowed_error_and_no_bare_except():
    found = []
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                bare = node.type is None
                wide = isinstance(node.type, ast.Name) and node.type.id in (
                    "Exception",
                    "BaseException",
                )
                silent = all(isinstance(b, ast.Pass) for b in node.body)
                if bare or (wide and silent):
                    found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []


def test_no_room_is_called_by_what_it_is_not():
    bad = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
    assert [name_of(p) for p in modules() if p.stem in bad] == []


def test_modules_keep_to_their_size():
    assert [name_of(p) for p in modules() if len(p.read_text().splitlines()) > 600] == []


def test_packages_export_nothing_at_import():
    code = (
        "import sys, fedtrade, clients, server; "
        "heavy = {'torch','flwr','numpy','web3','pydantic'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_runtime_import_circle():
    """Every module can be the first to be imported."""
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in modules()
        if p.name != "__main__.py"
    ]
    graph = {
        n: {
            target
            for m, _ in imports(p)
            for target in names
            if m == target or m.startswith(target + ".")
        }
        - {n}
        for n, p in zip(names, (p for p in modules() if p.name != "__main__.py"), strict=True)
    }
    packages = {p.split(".")[0] for p in names} | {
        n for n in names if (ROOT / n.replace(".", "/")).is_dir()
    }
    state = {}

    def visit(node, path):
        if state.get(node) == "done":
            return
        assert state.get(node) != "open", " -> ".join([*path, node])
        state[node] = "open"
        for target in sorted(graph[node] - packages):
            visit(target, [*path, node])
        state[node] = "done"

    for node in sorted(graph):
        visit(node, [])
