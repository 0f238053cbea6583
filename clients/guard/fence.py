"""A fence around the folders where Flower unpacks what it was sent: nothing there is ever opened.

Flower puts an unpacked bundle at the front of `sys.path`. The fence is an audit hook (PEP 578): once
it stands, Python in this process opens no file below the fenced folders, whoever asks and however:
source, byte code, a zip, an extension module, `runpy`, `exec(open(...))`. There is no call that takes
an audit hook away again. Only `LICENSE` and `pyproject.toml` directly in a bundle's folder pass; they
are read as text.

It is the second lock. The first one, `check_bundle`, looks at a bundle before it is unpacked; the
fence holds where that was not asked: what lay in the folders before, or what another process put
there meanwhile.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedtrade.bundle import FILES
from fedtrade.errors import Refusal

log = logging.getLogger("fedtrade.guard")

APPS = "apps"
FENCED = (APPS, "runtime-envs")
"""Below FLWR_HOME: where Flower 1.41 unpacks bundles, and where it would install their wishes."""


class ForeignCode(Refusal):
    """Something in this process wanted to open a file that came with a bundle."""

    def __init__(self, path: str) -> None:
        # Flower shows this text to the coordinator, so the path is in this node's own log only
        super().__init__(
            "a file that came with a bundle is not opened. Empty the folders "
            f"{' and '.join(FENCED)} of this node's Flower home, and ask who put it there"
        )
        self.path = path


class Fence:
    """The rule: which path may be opened. Separate from the hook so that it can be tested."""

    def __init__(self, home: Path) -> None:
        root = os.path.realpath(home)
        self._apps = os.path.join(root, APPS)
        self._fenced = tuple(os.path.join(root, name) + os.sep for name in FENCED)

    def forbids(self, path: object) -> str | None:
        """The real path of what must not be opened, or None where it may."""
        if isinstance(path, int) or path is None:
            return None  # a descriptor: it was opened, and judged, by its path before
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        try:
            real = os.path.realpath(os.fsdecode(path))
        except ValueError:  # an embedded zero byte: the system refuses it
            return None
        if not real.startswith(self._fenced):
            return None
        folder, name = os.path.split(real)
        if name in FILES and os.path.dirname(folder) == self._apps:
            return None
        return real

    def hook(self, event: str, arguments: Sequence[object]) -> None:
        """Audit hook: raises ForeignCode."""
        if event == "open":
            path = self.forbids(arguments[0])
        elif event == "import":
            path = self.forbids(arguments[1])  # the file of an extension module
        elif event == "ctypes.dlopen":
            path = self.forbids(arguments[0])
        else:
            return
        if path is not None:
            log.error("refused to open %r, which came with a bundle", path)
            raise ForeignCode(path)


def raise_fence(home: Path) -> None:
    """Fence off what Flower unpacks below `home`, in this process, for as long as it lives."""
    sys.addaudithook(Fence(home).hook)
