"""The relayer: posts the registry's state on the home chain and carries it to the mirrors.

It is trusted with nothing. A mirror believes a message that enough validators have signed, from one
beacon, with a higher number than before; whoever withholds, repeats or reorders can only delay, and
anybody may run a second relayer beside this one. What this one owns is the key that pays.

Each look at the chains (`Relay.look`) does what can be done at once and waits for nothing:

    home    post, if the registry or the parameters have changed, or the heartbeat is due
    mirror  take the newest message that a threshold of validators has signed and the mirror has not
            seen, prove it, send it. If the mirror refuses it some times, the next newest one goes.

A message supersedes all before it, so nothing is queued: whatever fails is tried again from what the
chains say, a bounded number of times each, and what is stuck gives way to what is newer. A chain or
storage that does not answer is left alone for a while, at most a minute; the others go on. The
process keeps nothing on disk: killed at any point, it starts from the chains.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from eth_utils.address import to_checksum_address

from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import ChainDeployment, Deployment, MessagesAt
from fedtrade.chain.mirrors import MirrorState, RegistryBeacon, RegistryMirror
from fedtrade.chain.quorum import reader
from fedtrade.chain.rpc import Rpc
from fedtrade.console import Stop
from fedtrade.errors import BadInput, Fault, Refusal, Stale, Unavailable
from fedtrade.venues.codec import Call, quantity
from fedtrade.venues.hyperlane import (
    ANNOUNCE,
    ANNOUNCED,
    PROCESS,
    VALIDATORS_AND_THRESHOLD,
    Announcement,
    BadCheckpoint,
    SignedCheckpoint,
    metadata,
    quorum,
    word_of,
)
from server.dispatched import Dispatched, Dispatches
from server.keys import CoordinatorKeys
from server.relay_settings import RelaySettings
from server.sending import Sender, Settled
from server.storages import Storage, StorageLost

log = logging.getLogger(__name__)

RPC_TIMEOUT_S: Final = 10.0
WAIT_MAX_S: Final = 60.0
STORAGES_AGAIN_S: Final = 60.0
"""How often storages are asked anew who publishes there."""
SILENT_S: Final = 30.0
"""How long a storage that fails is left alone."""
GIVEN_UP_S: Final = 600.0
"""How long a message rests that a mirror refused as often as the settings allow."""
CANDIDATES_MAX: Final = 4
"""Newest messages that are considered for one mirror in one look."""


class Misconnected(Fault):
    """A mirror or a storage is not of the beacon, tree or chain that the deployment names."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what}: {problem}. Correct the deployment file")
        self.what = what
        self.problem = problem


@dataclass
class Place:
    """One chain: its node, the relayer's account there, and when to try again."""

    chain: ChainDeployment
    at: MessagesAt
    rpc: Rpc
    sender: Sender
    says: str = "not looked at yet"
    """For the status line."""
    checked: bool = False
    """Whether the node has been found to be of this chain."""
    wait_s: float = 0.0
    again_s: float = 0.0

    def lost(self, why: str, now_s: float, poll_s: float) -> None:
        """Leave this chain alone for a while, longer each time."""
        if why != self.says:
            log.warning("%s: %s", self.chain.name, why)
        self.says = why
        self.wait_s = min(WAIT_MAX_S, max(poll_s, 2 * self.wait_s))
        self.again_s = now_s + self.wait_s

    def found(self) -> None:
        self.wait_s = self.again_s = 0.0


@dataclass
class Mirror(Place):
    """A chain with a mirror."""

    address: str = ""
    validators: tuple[str, ...] = ()
    threshold: int = 0
    refusals: dict[bytes, tuple[int, float]] = field(default_factory=dict)
    """How often a message was refused or given up, and when last, by id."""
    seen_s: dict[bytes, float] = field(default_factory=dict)
    """When a message was first seen, by id."""
    under_way: bytes = b""


class Relay:
    """One relayer. `look` again and again; use as a context manager."""

    def __init__(
        self,
        settings: RelaySettings,
        keys: CoordinatorKeys,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        deployment = Deployment.load(settings.deployment)
        self._settings, self._keys, self._clock = settings, keys, clock
        home = deployment.chain(deployment.home)
        if home.messages is None or home.messages.beacon is None:
            raise BadInput(str(settings.deployment), "the home chain has no beacon", "Deploy one")
        self.home = Place(*self._reached(home))
        self._beacon = RegistryBeacon(home.messages.beacon)
        self._dispatches = Dispatches(
            self.home.rpc,
            home.messages.beacon,
            home.messages.mailbox,
            home.messages.merkle_tree_hook,
            home.from_block,
            settings.final_block,
        )
        self.mirrors = [
            Mirror(*self._reached(chain), address=chain.messages.mirror)
            for chain in deployment.chains
            if chain.messages is not None and chain.messages.mirror is not None
        ]
        if not self.mirrors:
            raise BadInput(str(settings.deployment), "no chain has a mirror", "Deploy one")
        self._storages = [Storage(location) for location in settings.storages]
        self._published: dict[str, tuple[Storage, Announcement]] = {}
        """By the validator's lower-case address."""
        self._ask_storages_s = 0.0
        self._silent_until_s: dict[str, float] = {}

    def _reached(self, chain: ChainDeployment) -> tuple[ChainDeployment, MessagesAt, Rpc, Sender]:
        assert chain.messages is not None
        rpc = reader(chain.all_rpc_urls, chain.chain_id, RPC_TIMEOUT_S)
        fees = self._settings.fees.limits()
        sender = Sender(chain.name, chain.chain_id, rpc, self._keys, fees, self._clock)
        return chain, chain.messages, rpc, sender

    def look(self) -> None:
        """One look at everything. Raises Fault where a chain is not the one that it should be."""
        self._guarded(self.home, self._look_home)
        for mirror in self.mirrors:
            self._guarded(mirror, partial(self._look_mirror, mirror))

    def _guarded(self, place: Place, act: Callable[[], None]) -> None:
        """What one chain fails at is no other chain's matter."""
        if self._clock() < place.again_s:
            return
        try:
            act()
        except (Stale, Refusal, Unavailable) as error:
            place.lost(error.message, self._clock(), self._settings.poll_s)
        else:
            place.found()

    # the home chain

    def _look_home(self) -> None:
        home = self.home
        self._check_chain(home)
        self._settled(home)
        self._dispatches.refresh([mirror.at.domain for mirror in self.mirrors])
        self._ask_storages()
        if home.sender.busy:
            return
        due = self._due()
        if due:
            self._post(due)
            return
        home.says = "nothing to post"
        self._announce()

    def _due(self) -> list[int]:
        """The domains whose newest message says something else than the registry does now."""
        now = ask(self.home.rpc, self._beacon.snapshot())
        due = []
        for mirror in self.mirrors:
            sent = self._dispatches.to(mirror.at.domain, mirror.address)
            if not sent:
                due.append(mirror.at.domain)
                continue
            last = sent[0].snapshot
            silent_s = now.sent_at_s - last.sent_at_s
            changed = last.says(now.sent_at_s) != now.says(now.sent_at_s)
            if changed or silent_s >= self._settings.heartbeat_s:
                due.append(mirror.at.domain)
        return due

    def _post(self, domains: list[int]) -> None:
        for mirror in self.mirrors:
            named = ask(self.home.rpc, self._beacon.mirror_of(mirror.at.domain))
            if not any(named):
                log.warning(
                    "%s: the beacon's owner has not named its mirror yet", mirror.chain.name
                )
                domains = [domain for domain in domains if domain != mirror.at.domain]
            elif named != word_of(mirror.address):
                raise Misconnected(mirror.chain.name, "the beacon names another mirror for it")
        if not domains:
            self.home.says = "waits for governance to name the mirrors"
            return
        fee = ask(self.home.rpc, self._beacon.quote(domains))
        if fee > self._settings.fees.post_max_wei:
            raise BadInput(
                "fees.post_max_wei", f"a post costs {fee} wei beside its gas", "Raise it, or wait"
            )
        self.home.sender.send(self._beacon.post(domains, fee), f"post to {len(domains)} mirrors")
        self.home.says = f"posting to {len(domains)} mirrors"

    # the storages

    def _ask_storages(self) -> None:
        """Who publishes where, from signed announcements; asked again now and then."""
        if self._clock() < self._ask_storages_s:
            return
        at, missing = self.home.at, 0
        for storage in self._storages:
            try:
                said = storage.announcement()
            except (StorageLost, BadCheckpoint) as error:
                log.info("%s", error)
                missing += 1
                continue
            fits = (said.domain, said.mailbox) == (at.domain, at.mailbox.lower())
            if fits and said.location == storage.location:
                self._published[said.validator] = (storage, said)
            else:
                log.warning("%s: its announcement is of another chain or place", storage.location)
        wait_s = min(STORAGES_AGAIN_S, 10 * self._settings.poll_s) if missing else STORAGES_AGAIN_S
        self._ask_storages_s = self._clock() + wait_s

    def _announce(self) -> None:
        """Put the validators' announcements on-chain, so that any other relayer finds them."""
        known = list(self._published.items())
        if not known:
            return
        addresses = [to_checksum_address(validator) for validator, _ in known]
        announce = self.home.at.validator_announce
        asked = read([(announce, ANNOUNCED, (addresses,))], "latest")
        ((locations,),) = ask(self.home.rpc, asked)
        for (validator, (storage, said)), announced in zip(known, locations, strict=True):
            if storage.location not in announced:
                data = ANNOUNCE.encode(validator, said.location, said.signature)
                self.home.sender.send(Call(announce, data), f"announcement of {validator}")
                return  # one at a time: the next look sends the next

    # a mirror

    def _look_mirror(self, mirror: Mirror) -> None:
        self._check_chain(mirror)
        self._settled(mirror)
        if mirror.sender.busy:
            return
        state = ask(mirror.rpc, RegistryMirror(mirror.address).state())
        self._check_mirror(mirror, state)
        sent = self._dispatches.to(mirror.at.domain, mirror.address)
        taken = next((one for one in sent if one.snapshot.sequence == state.sequence), None)
        newer = [
            one
            for one in sent
            if one.snapshot.sequence > state.sequence and self._worth_it(one, taken)
        ]
        mirror.says = f"at {state.sequence}"
        for one in newer:
            mirror.seen_s.setdefault(one.message.id, self._clock())
        for one in newer[:CANDIDATES_MAX]:
            if self._rests(mirror, one.message.id):
                mirror.says = f"at {state.sequence}, {one.snapshot.sequence} is refused"
                continue
            if self._deliver(mirror, one, state):
                return
        self._forget(mirror, {one.message.id for one in newer})

    def _worth_it(self, one: Dispatched, taken: Dispatched | None) -> bool:
        """Whether it tells the mirror anything. Anybody may post, and this account pays to deliver."""
        if taken is None:
            return True
        at_s = one.snapshot.sent_at_s
        changed = one.snapshot.says(at_s) != taken.snapshot.says(at_s)
        return changed or at_s - taken.snapshot.sent_at_s >= self._settings.heartbeat_s

    def _rests(self, mirror: Mirror, message_id: bytes) -> bool:
        """Whether a message was refused so often that it waits; then it begins anew."""
        count, last_s = mirror.refusals.get(message_id, (0, 0.0))
        if count < self._settings.fees.attempts_max:
            return False
        if self._clock() - last_s < GIVEN_UP_S:
            return True
        del mirror.refusals[message_id]
        return False

    def _deliver(self, mirror: Mirror, one: Dispatched, state: MirrorState) -> bool:
        """Prove and send one message; false if it cannot be proved yet or is refused."""
        files = self._signatures(mirror, one)
        proof = quorum(files, mirror.validators, mirror.threshold)
        if proof is None:
            mirror.says = (
                f"at {state.sequence}, {one.snapshot.sequence} has {len(files)} signatures and needs "
                f"{mirror.threshold} alike"
            )
            return False
        data = PROCESS.encode(metadata(*proof), one.message.encoded)
        try:
            mirror.sender.send(Call(mirror.at.mailbox, data), f"message {one.snapshot.sequence}")
        except Refusal as refused:
            self._count_refusal(mirror, one.message.id, refused.message)
            return False
        mirror.under_way = one.message.id
        mirror.says = f"at {state.sequence}, {one.snapshot.sequence} is on its way"
        return True

    def _signatures(self, mirror: Mirror, one: Dispatched) -> Mapping[str, SignedCheckpoint]:
        """The validators' checkpoints of this message, as far as they are there and fit it."""
        found: dict[str, SignedCheckpoint] = {}
        expected = (
            self.home.at.domain,
            word_of(self.home.at.merkle_tree_hook),
            one.index,
            one.message.id,
        )
        for validator in mirror.validators:
            if validator not in self._published:
                continue
            storage, _ = self._published[validator]
            if self._clock() < self._silent_until_s.get(storage.location, 0.0):
                continue
            try:
                signed = storage.checkpoint(one.index)
            except (StorageLost, BadCheckpoint) as error:  # the others may suffice
                log.info("%s", error)
                self._silent_until_s[storage.location] = self._clock() + SILENT_S
                continue
            if signed is None or signed.signer != validator:
                continue
            c = signed.checkpoint
            if (c.domain, c.hook, c.index, c.message_id) == expected:
                found[validator] = signed
        return found

    def _check_mirror(self, mirror: Mirror, state: MirrorState) -> None:
        """Once: the mirror listens to this beacon, and who its validators are."""
        if mirror.validators:
            return
        assert self.home.at.beacon is not None
        expected = (mirror.at.mailbox, self.home.at.domain, word_of(self.home.at.beacon))
        if (state.mailbox, state.home_domain, state.beacon) != expected:
            raise Misconnected(mirror.chain.name, "its mirror listens to another beacon or mailbox")
        asked = read([(state.security_module, VALIDATORS_AND_THRESHOLD, (b"",))], "latest")
        ((validators, threshold),) = ask(mirror.rpc, asked)
        mirror.validators = tuple(address.lower() for address in validators)
        mirror.threshold = threshold

    def _forget(self, mirror: Mirror, wanted: set[bytes]) -> None:
        mirror.refusals = {k: v for k, v in mirror.refusals.items() if k in wanted}
        mirror.seen_s = {k: v for k, v in mirror.seen_s.items() if k in wanted}

    # both

    def _check_chain(self, place: Place) -> None:
        if place.checked:
            return
        found = quantity(place.rpc.call("eth_chainId"))
        if found != place.chain.chain_id:
            raise Misconnected(place.chain.name, f"its node is of chain {found}")
        place.checked = True

    def _settled(self, place: Place) -> None:
        settled = place.sender.settle()
        if settled is None:
            return
        since_s = None
        if isinstance(place, Mirror):
            since_s = place.seen_s.get(place.under_way)
            if settled.outcome != "mined":
                self._count_refusal(place, place.under_way, settled.outcome)
        _tell(place.chain.name, settled, None if since_s is None else self._clock() - since_s)

    def _count_refusal(self, mirror: Mirror, message_id: bytes, why: str) -> None:
        count = mirror.refusals.get(message_id, (0, 0.0))[0] + 1
        mirror.refusals[message_id] = count, self._clock()
        log.warning("%s, %d. attempt: %s", mirror.chain.name, count, why)

    def status_line(self) -> str:
        """One line on where everything stands."""
        parts = [f"{place.chain.name}: {place.says}" for place in (self.home, *self.mirrors)]
        return " | ".join(parts)

    def close(self) -> None:
        """Let go of the nodes."""
        for place in (self.home, *self.mirrors):
            place.rpc.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def follow(relay: Relay, poll_s: float, stop: Stop, say: Callable[[str], None]) -> None:
    """Look, wait, look again, until `stop`; say where everything stands when that changes."""
    said = ""
    while not stop.is_set():
        relay.look()
        line = relay.status_line()
        if line != said:
            say(line)
            said = line
        stop.wait(poll_s)


def _tell(name: str, settled: Settled, took_s: float | None) -> None:
    took = "" if took_s is None else f", {took_s:.1f} s after it was seen"
    log.info("%s: %s %s, %d gas%s", name, settled.what, settled.outcome, settled.gas, took)
