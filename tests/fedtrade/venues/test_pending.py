"""What a node tells of transactions: the pool follows a real one through all that can happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.chain.agreement import head_from
from fedtrade.market.pending import PendingPool
from fedtrade.venues.codec import AnswerUnreadable
from fedtrade.venues.pending import INPUT_MAX_BYTES, mined_in, transaction_of

GWEI = 10**9
ONE, TWO = f"0x{'11' * 20}", f"0x{'22' * 20}"

LEGACY = {
    "hash": "0x" + "AB" * 32,
    "from": ONE,
    "to": None,
    "nonce": "0x5",
    "value": "0x0",
    "gas": "0x5208",
    "gasPrice": hex(7 * GWEI),
    "input": "0x60ff",
}


def test_a_legacy_transaction_pays_its_price():
    told = transaction_of(LEGACY)
    assert (told.max_fee_wei, told.max_tip_wei, told.nonce) == (7 * GWEI, 7 * GWEI, 5)
    assert (told.to, told.input, told.hash) == (None, b"\x60\xff", "0x" + "ab" * 32)
    newer = LEGACY | {"maxFeePerGas": hex(9 * GWEI), "maxPriorityFeePerGas": hex(GWEI), "to": TWO}
    told = transaction_of(newer)
    assert (told.max_fee_wei, told.max_tip_wei) == (9 * GWEI, GWEI)
    assert told.tip_wei(8 * GWEI + 1) == GWEI - 1


BAD = {
    "hash": ["0x12", 7, None, "0x" + "zz" * 32],
    "from": ["0x", TWO + "00", None],
    "to": ["", 3],
    "nonce": ["-0x1", "0x" + "f" * 16, None, 1.5],
    "value": ["0x1" + "0" * 64],
    "gas": ["x"],
    "gasPrice": [None],
    "input": ["60ff", "0x6", "0x" + "00" * (INPUT_MAX_BYTES + 1)],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, all in BAD.items() for v in all])
def test_what_is_none_is_refused_by_name(name, value):
    with pytest.raises(AnswerUnreadable):
        transaction_of(LEGACY | {name: value})
    with pytest.raises(AnswerUnreadable):
        transaction_of({n: v for n, v in LEGACY.items() if n != name})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
)


@given(st.dictionaries(st.sampled_from([*LEGACY, "maxFeePerGas"]), ANYTHING) | ANYTHING)
def test_no_answer_leaves_another_error(raw):
    for read in (transaction_of, mined_in, lambda r: mined_in({"transactions": [r]})):
        try:
            read(raw)
        except AnswerUnreadable:
            continue


class Told:
    """One node's answers, read into a pool, as a subscription would tell them."""

    def __init__(self, chain):
        self.chain, self.rpc = chain, chain.rpc
        chain.anvil.automine(False)
        for address in (ONE, TWO):
            chain.anvil.impersonate(address)
            chain.anvil.set_balance(address, 10**20)
        self.pool = PendingPool()
        self.pool.begin(head_from(self.rpc.call("eth_getBlockByNumber", "latest", False)), 0)

    def send(self, sender, nonce, fee, tip):
        fields = {"from": sender, "to": TWO, "nonce": hex(nonce), "gas": hex(21_000)}
        fields |= {"maxFeePerGas": hex(fee * GWEI), "maxPriorityFeePerGas": hex(tip * GWEI)}
        name = self.rpc.call("eth_sendTransaction", fields)
        raw = self.rpc.call("eth_getTransactionByHash", name)
        return name, self.pool.arrive(transaction_of(raw), 1)

    def mine(self):
        self.chain.anvil.mine()
        return self.told()

    def told(self, number="latest"):
        block = self.rpc.call("eth_getBlockByNumber", number, True)
        return self.pool.mine(head_from(block), mined_in(block), 1)

    def held(self):
        """Hashes that the node itself says are pending or queued."""
        content = self.rpc.call("txpool_content")
        slots = [*content["pending"].values(), *content["queued"].values()]
        return {transaction_of(raw).hash for slot in slots for raw in slot.values()}

    def ours(self):
        return {t.hash for t in self.pool}


@pytest.fixture
def told(chain):
    return Told(chain)


def test_it_follows_a_real_node(told):
    first, _ = told.send(ONE, 0, 20, 2)
    second, _ = told.send(ONE, 1, 20, 1)  # anvil loses a later nonce that pays a higher tip
    other, _ = told.send(TWO, 0, 20, 2)
    assert told.ours() == told.held() == {first, second, other}
    better, gone = told.send(TWO, 0, 30, 3)
    assert [(g.transaction.hash, g.fate, g.by) for g in gone] == [(other, "replaced", better)]
    assert told.ours() == told.held() == {first, second, better}
    expected = [t.hash for t in told.pool.next_block(GWEI, 30_000_000)]
    gone = told.mine()
    assert {g.fate for g in gone} == {"mined"}
    block = told.rpc.call("eth_getBlockByNumber", "latest", True)
    assert [t["hash"] for t in block["transactions"]] == expected == [better, first, second]
    assert told.ours() == told.held() == set()


def test_what_the_node_drops_and_undoes(told):
    queued, _ = told.send(ONE, 3, 20, 2)  # 0 to 2 are missing
    dropped, _ = told.send(TWO, 0, 20, 2)
    told.rpc.call("anvil_dropTransaction", dropped)
    told.pool.drop(dropped, 1)
    assert told.ours() == told.held() == {queued}
    told.mine()  # an empty block, so that a nonce gap stays
    sent, _ = told.send(TWO, 0, 25, 2)
    told.mine()
    assert told.ours() == told.held() == {queued}
    told.chain.anvil.reorg(1)
    told.told()
    assert sent in told.ours()  # it waits again, wherever the node has put it
    assert told.ours() == {queued, sent}
