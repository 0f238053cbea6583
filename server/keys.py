"""The coordinator's signing key: it signs announcements and manifests and pays for transactions.

The only module on this side that holds a private key. It cannot publish a model (that takes the
members' signatures) and reads no update. The file is `coordinator.key`, mode 0600, created
exclusively and never overwritten; a file that others can read is refused. Signing is eth-account's.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32

from fedtrade.errors import BadInput, Refusal

KEY_FILE: Final = "coordinator.key"

# eth_account brings a library that raises Python's recursion limit to 100,000, far beyond the stack
# that C parsers have: a deeply nested message would end the process instead of being refused.
sys.setrecursionlimit(min(sys.getrecursionlimit(), 1_000))


class KeyWithheld(Refusal):
    """Somebody tried to serialise a private key."""

    def __init__(self) -> None:
        super().__init__("A private key has no serialiser. Pass the CoordinatorKeys object itself.")


class CoordinatorKeys:
    """The coordinator's key. Make it with `create`, `load` or `ephemeral`."""

    __slots__ = ("_account", "address")

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self.address: str = account.address

    @classmethod
    def ephemeral(cls) -> Self:
        """A new key that lives in this process only."""
        return cls(Account.from_key(os.urandom(32)))

    @classmethod
    def create(cls, folder: Path) -> Self:
        """A new key, written to `folder`; refuses where there is one."""
        keys = cls.ephemeral()
        path = folder / KEY_FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise BadInput(
                str(path),
                f"the key cannot be written ({error.strerror})",
                "Choose a folder that you own and that has no key yet",
            ) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(keys._account.key.hex() + "\n")
            file.flush()
            os.fsync(descriptor)
        return keys

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The key in `folder`; refuses a file that anyone else can read.

        From here on this process and its children leave no core file: one would hold the key.
        """
        path = folder / KEY_FILE
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            if path.is_symlink() or stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise BadInput(
                    str(path), "others can read this key, or it is a link", f"chmod 600 {path}"
                )
            return cls(Account.from_key(bytes.fromhex(path.read_text().strip())))
        except OSError as error:
            raise BadInput(
                str(path),
                f"no key can be read ({error.strerror})",
                "Create one, or give the right folder",
            ) from None
        except ValueError:
            raise BadInput(
                str(path), "this is no key file", "Restore it from your backup"
            ) from None

    def sign_digest(self, digest: bytes) -> bytes:
        """r ‖ s ‖ v of a 32-byte digest."""
        return bytes(self._account.unsafe_sign_hash(Hash32(digest)).signature)

    def sign_transaction(self, transaction: dict[str, Any]) -> bytes:
        """The raw bytes of a signed EIP-1559 transaction."""
        return bytes(self._account.sign_transaction(transaction).raw_transaction)

    def __repr__(self) -> str:
        return f"CoordinatorKeys({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise KeyWithheld
