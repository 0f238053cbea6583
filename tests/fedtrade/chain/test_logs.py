"""Logs over many blocks: in pieces, in order, and never without end."""

import itertools

import pytest

from fedtrade.chain.logs import PIECE_BLOCKS, PIECES_MAX, logs_between
from fedtrade.errors import BadInput
from fedtrade.venues.codec import AnswerUnreadable

ADDRESS = "0x" + "ab" * 20


def log(block, index=0, address=ADDRESS):
    return {"address": address, "blockNumber": hex(block), "logIndex": hex(index)}


def held(conversation, answer):
    """Run a conversation with a node that answers `answer(asked)`; gives result and questions."""
    asked, result = [], None
    try:
        ((_, (question,)),) = next(conversation)
        while True:
            asked.append(question)
            ((_, (question,)),) = conversation.send([answer(question)])
    except StopIteration as end:
        result = end.value
    return result, asked


def test_many_blocks_are_asked_for_in_pieces_without_gap_or_overlap():
    last = 3 * PIECE_BLOCKS + 5
    result, asked = held(
        logs_between(ADDRESS, ["0xaa"], 7, last),
        lambda q: [log(int(q["toBlock"], 16)), log(int(q["fromBlock"], 16))],
    )
    spans = [(int(q["fromBlock"], 16), int(q["toBlock"], 16)) for q in asked]
    assert spans[0][0] == 7
    assert spans[-1][1] == last
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(spans))
    assert all(end - start < PIECE_BLOCKS for start, end in spans)
    blocks = [int(one["blockNumber"], 16) for one in result]
    assert blocks == sorted(blocks)
    assert asked[0]["topics"] == [["0xaa"]]


def test_no_head_makes_it_go_on_for_ever():
    for head in (PIECE_BLOCKS * PIECES_MAX, 2**63, 2**256):
        with pytest.raises(BadInput, match="Correct from_block"):
            held(logs_between(ADDRESS, [], 0, head), lambda _: [])
    assert held(logs_between(ADDRESS, [], 5, 4), lambda _: []) == ([], [])


@pytest.mark.parametrize(
    "answer", [None, {}, "x", [log(1, address="0x" + "cd" * 20)], [{}], [log(1)] * 70_000]
)
def test_answers_that_are_no_logs_of_the_contract_are_refused(answer):
    with pytest.raises(AnswerUnreadable):
        held(logs_between(ADDRESS, [], 0, 9), lambda _: answer)
