"""Who may pass the gate, and how often: a node's signature in the headers, and token buckets.

A SuperNode signs the text of a timestamp with its key (P-384 or another NIST curve) and sends key,
timestamp and signature with every request (Flower 1.41). That is enough to know it before a byte of
the body is read; the SuperLink checks the same again, and that the node is the key's.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

KEY_HEADER: Final = "flwr-public-key"
TIMESTAMP_HEADER: Final = "flwr-timestamp"
SIGNATURE_HEADER: Final = "flwr-signature"
BEHIND_S_MAX: Final = 300.0
AHEAD_S_MAX: Final = 5.0
"""How far a node's clock may be behind or ahead; the SuperLink's own limits are the same."""


class Refused(Exception):
    """A request that goes no further: a status, and a reason that the sender may see."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def check_node(
    headers: Mapping[str, str], registered: Callable[[bytes], bool], now: datetime
) -> bytes:
    """The registered key (PEM) that signed these headers just now. Raises Refused (401)."""
    try:
        key_pem = b64decode(headers[KEY_HEADER], validate=True)
        signature = b64decode(headers[SIGNATURE_HEADER], validate=True)
        timestamp = headers[TIMESTAMP_HEADER]
        signed_at = datetime.fromisoformat(timestamp)
        age_s = (now - signed_at).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError, binascii.Error):
        raise Refused(401, "send a node's key, timestamp and signature") from None
    if not registered(key_pem):
        raise Refused(401, "this node's key is not registered")
    if not -AHEAD_S_MAX < age_s < BEHIND_S_MAX + AHEAD_S_MAX:
        raise Refused(
            401, f"this node's clock is {-age_s:+.0f} s from the coordinator's, {now.isoformat()}"
        )
    key = load_pem_public_key(key_pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused(401, "this node's key is not registered")
    try:
        key.verify(signature, timestamp.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused(401, "the signature is not that of the key") from None
    return key_pem


class Buckets:
    """Token buckets by name. The least recently used is forgotten beyond `kept_max`."""

    def __init__(self, rate_per_s: float, burst: float, kept_max: int) -> None:
        self._rate_per_s, self._burst, self._kept_max = rate_per_s, burst, kept_max
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now_s: float) -> bool:
        """Take one token; False where there is none."""
        level, at_s = self._levels.pop(name, (self._burst, now_s))
        level = min(self._burst, level + (now_s - at_s) * self._rate_per_s)
        taken = level >= 1.0
        self._levels[name] = (level - 1.0 if taken else level, now_s)
        if len(self._levels) > self._kept_max:
            self._levels.popitem(last=False)
        return taken

    def __len__(self) -> int:
        return len(self._levels)
