"""Responses are cut by bytes, in order, and a record that is too large alone goes alone."""

from __future__ import annotations

import pytest

from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import ListClientsResponse
from server.api.encoding.sizes import fitted, pieces
from server.domain.pagination import page_of

MIB = 1 << 20


def client(number: int, size: int) -> Client:
    return Client(id=number, tag="x" * size)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10] * 7, [3, 3, 1]),
        ([MIB // 2, MIB // 3, MIB // 3, 10], [2, 2]),
        ([10, 2 * MIB, 10], [1, 1, 1]),
        ([], []),
    ],
)
def test_pieces_hold_what_fits(sizes: list[int], expected: list[int]) -> None:
    clients = [client(number, size) for number, size in enumerate(sizes)]
    cut = list(pieces(clients, 3))
    assert [len(piece) for piece in cut] == expected
    assert [one for piece in cut for one in piece] == clients
    assert all(len(one) == 1 or ListClientsResponse(clients=one).ByteSize() <= MIB for one in cut)


@pytest.mark.parametrize(
    ("sizes", "room", "fitting", "token"),
    [([10, 10], 2, 2, ""), ([10, 10, 10], 2, 2, "1"), ([MIB // 2] * 4, 4, 1, "0"), ([2 * MIB, 10], 2, 1, "0")],
)
def test_a_page_that_is_too_large_continues_on_the_next(sizes: list[int], room: int, fitting: int, token: str) -> None:
    clients = [client(number, size) for number, size in enumerate(sizes)]
    encoded, next_token = fitted(page_of(clients, room, lambda one: str(one.id)), lambda one: one)
    assert encoded == clients[:fitting]
    assert next_token == token
