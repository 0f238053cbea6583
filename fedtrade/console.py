"""How every command ends: one clear sentence on stderr, and an exit code that says what to do.

2: accept it or fix the input; 3: resync and try again; 4: stop and look (`fedtrade.errors`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from fedtrade.errors import Fault, FedtradeError, Refusal, Stale


def leave_cleanly(name: str, run: Callable[[], object]) -> None:
    """Run a command line; an error of ours becomes its sentence and its exit code."""
    try:
        run()
    except Refusal as error:
        _leave(name, error)
    except Stale as error:
        _leave(name, error)
    except Fault as error:
        _leave(name, error)


def _leave(name: str, error: FedtradeError) -> None:
    print(f"{name}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
