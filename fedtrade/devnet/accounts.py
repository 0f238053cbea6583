"""The unlocked accounts of a local chain, by what they do.

They are anvil's: derived from the public test mnemonic "test test … junk", which anybody can spend
from on any chain. The node signs for them; no key of theirs is in here. Members, helpers, the
coordinator and agents use keys of their own, which `Devnet.fund` gives money to.
"""

from __future__ import annotations

from typing import Final

GOVERNOR: Final = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
"""Deploys, mints the stand-in tokens. The timelock owns the consortium's contracts; what a passed
proposal would have it do, `Devnet.govern` does at once."""

OPERATOR: Final = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
"""Pushes prices to the stand-in feed."""

ARBITRAGEUR: Final = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
NOISE_TRADER: Final = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
BACKGROUND_LP: Final = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
STATIC_LP: Final = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"

GUARDIAN: Final = "0x976EA74026E726554dB657fA54763abd0C3a0aa9"
"""Cancels proposals, revokes models, tightens parameters, pauses."""

STEWARD: Final = "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955"
"""Moves parameters within their steps."""
