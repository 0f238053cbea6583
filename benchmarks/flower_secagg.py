"""Flower's SecAgg+ for one round, by its own functions as installed: the counterpart of our committee.

The member's four stages are the functions that `secaggplus_mod` calls on a member's machine; the
server's unmasking is what `SecAggPlusWorkflow` does after the last stage. Every member shares with
every other, a majority reconstructs (Flower has no default; a higher threshold costs it more), and
clipping and quantisation are Flower's defaults. Times are CPU seconds of the process.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, field
from time import process_time
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from numpy.typing import NDArray

CLIPPING, TARGET, MODULUS, WEIGHT_MAX = 8.0, 2**22, 2**32, 1000.0
EXAMPLES = 100

mod: Any = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
"""The module, which its own package hides behind a function of the same name."""


@dataclass
class FlowerRound:
    """One round among `members`, of vectors with `length` entries."""

    members: int
    length: int
    seed: int = 0
    states: dict[int, Any] = field(default_factory=dict)
    keys: dict[int, Any] = field(default_factory=dict)
    inbox: dict[int, tuple[list[int], list[bytes]]] = field(default_factory=dict)
    updates: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    member_s: dict[int, float] = field(default_factory=dict)
    """Member -> seconds of its work so far."""

    def __post_init__(self) -> None:
        logging.getLogger("flwr").setLevel(logging.ERROR)
        rng = np.random.default_rng(self.seed)
        self.ids = [int(i) for i in rng.choice(2**48, self.members, replace=False) + 1]
        self.threshold = self.members // 2 + 1
        self.updates = {i: rng.normal(0, 0.05, self.length).astype(np.float32) for i in self.ids}

    def _timed(self, member: int, call: Any, *arguments: Any) -> Any:
        begin = process_time()
        result = call(*arguments)
        self.member_s[member] = self.member_s.get(member, 0.0) + process_time() - begin
        return result

    def share(self) -> None:
        """Stages 0 and 1 of every member: keys, then Shamir shares for every other member."""
        for i in self.ids:
            config = ConfigRecord(
                {
                    Key.SAMPLE_NUMBER: self.members,
                    Key.SHARE_NUMBER: self.members,
                    Key.THRESHOLD: self.threshold,
                    Key.CLIPPING_RANGE: CLIPPING,
                    Key.TARGET_RANGE: TARGET,
                    Key.MOD_RANGE: MODULUS,
                    Key.MAX_WEIGHT: WEIGHT_MAX,
                }
            )
            state = mod.SecAggPlusState()
            state.nid = i
            self.states[i] = state
            self.keys[i] = self._timed(i, mod._setup, state, config)
            self.inbox[i] = ([], [])
        public = {str(i): [k[Key.PUBLIC_KEY_1], k[Key.PUBLIC_KEY_2]] for i, k in self.keys.items()}
        for i in self.ids:
            sent = self._timed(i, mod._share_keys, self.states[i], ConfigRecord(dict(public)))
            for to, box in zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True):
                self.inbox[to][0].append(i)
                self.inbox[to][1].append(box)

    def mask(self, member: int) -> list[bytes]:
        """Stage 2 of one member: quantise and mask; gives what it uploads."""
        sources, boxes = self.inbox[member]
        config = ConfigRecord({Key.CIPHERTEXT_LIST: boxes, Key.SOURCE_LIST: sources})
        parameters = ndarrays_to_parameters([self.updates[member]])
        state = self.states[member]
        sent = self._timed(member, mod._collect_masked_vectors, state, config, EXAMPLES, parameters)
        vectors: list[bytes] = sent[Key.MASKED_PARAMETERS]
        return vectors

    def reveal(self) -> dict[int, list[bytes]]:
        """Stage 3 of every member: its shares of everybody's mask seed, nobody having dropped."""
        collected: dict[int, list[bytes]] = {i: [] for i in self.ids}
        for i in self.ids:
            config = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: self.ids, Key.DEAD_NODE_ID_LIST: []})
            sent = self._timed(i, mod._unmask, self.states[i], config)
            for owner, share in zip(sent[Key.NODE_ID_LIST], sent[Key.SHARE_LIST], strict=True):
                collected[owner].append(share)
        return collected

    @staticmethod
    def add(uploads: list[list[bytes]]) -> list[NDArray[Any]]:
        """The masked sum, as the server adds it up while uploads come in."""
        total = [bytes_to_ndarray(b) for b in uploads[0]]
        for upload in uploads[1:]:
            total = parameters_addition(total, [bytes_to_ndarray(b) for b in upload])
        return total

    def unmask(
        self, total: list[NDArray[Any]], collected: dict[int, list[bytes]]
    ) -> NDArray[np.float64]:
        """The server's work: rebuild every seed from its shares and take its mask away."""
        vector = parameters_mod(total, MODULUS)
        shapes = get_parameters_shape(vector)
        for shares in collected.values():
            secret = combine_shares(shares)
            vector = parameters_subtraction(vector, pseudo_rand_gen(secret, MODULUS, shapes))
        factor, quantised = factor_extract(parameters_mod(vector, MODULUS))
        mean = dequantize(quantised, CLIPPING, TARGET)[0]
        result: NDArray[np.float64] = (mean - (self.members - 1) * CLIPPING) * (TARGET / factor)
        return result

    def message_bytes(self, upload: list[bytes]) -> int:
        """Size of the reply that carries a masked vector, as Flower puts it on the wire."""
        from flwr.common.serde import recorddict_to_proto

        record = ConfigRecord({Key.MASKED_PARAMETERS: upload}, False)
        return int(recorddict_to_proto(RecordDict({RECORD_KEY_CONFIGS: record})).ByteSize())
