"""One conversation, two transports, the same answer."""

import asyncio

import pytest

from fedtrade.chain.conversation import IN_FLIGHT_MAX, ask, ask_async, read, view_call
from fedtrade.chain.rpc import NodeRefused
from fedtrade.venues.codec import Function

DOUBLE = Function("double(uint256)", "(uint256)")


class Doubler:
    """Answers DOUBLE, over both transports; `highest` is how many calls waited at one time."""

    def __init__(self):
        self.waiting = self.highest = 0

    def answer(self, method, call, block):
        assert (method, block) == ("eth_call", "0x5")
        (value,) = DOUBLE.decode_input(bytes.fromhex(call["data"][2:]))
        return "0x" + (2 * value).to_bytes(32, "big").hex()


class Sync(Doubler):
    def batch(self, calls):
        return [self.answer(method, *params) for method, params in calls]


class Async(Doubler):
    async def call(self, method, *params):
        self.waiting += 1
        self.highest = max(self.highest, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        return self.answer(method, *params)


def twice(values):
    first = yield from read([("0x1", DOUBLE, (value,)) for value in values], 5)
    second = yield from read([("0x1", DOUBLE, row) for row in first], 5)
    return [value for (value,) in second]


def test_both_transports_give_the_same():
    assert ask(Sync(), twice([1, 2])) == [4, 8]
    assert asyncio.run(ask_async(Async(), twice([1, 2]))) == [4, 8]


def test_a_conversation_without_calls_ends():
    assert ask(Sync(), twice([])) == []


def test_calls_in_flight_are_limited():
    node = Async()
    asyncio.run(ask_async(node, twice(list(range(3 * IN_FLIGHT_MAX)))))
    assert node.highest == IN_FLIGHT_MAX


def test_an_error_leaves_the_conversation():
    class Refusing(Async):
        async def call(self, method, *params):
            raise NodeRefused(method, 3, "no", "")

    with pytest.raises(NodeRefused):
        asyncio.run(ask_async(Refusing(), twice([1])))


def test_a_view_as_a_call():
    method, (call, block) = view_call("0x1", DOUBLE, (3,), 5, "0x2")
    assert (method, block, call["from"]) == ("eth_call", "0x5", "0x2")
    assert DOUBLE.decode_input(bytes.fromhex(call["data"][2:])) == (3,)
