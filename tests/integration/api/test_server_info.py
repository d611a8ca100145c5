"""What operators see of the service itself, and how mailings are found by their words."""

from __future__ import annotations

import asyncpg
import grpc
import pytest

from mailing.builders import new_mailing
from mailing.v1.admin_service_pb2 import GetServerInfoRequest
from mailing.v1.admin_service_pb2_grpc import AdminServiceStub
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, ListMailingsRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.config import Settings
from server.runtime.api_settings import ApiSettings
from server.storage.migrate import load_migrations
from tests.support.api import serving


async def test_versions_and_settings_are_told_without_secrets(pool: asyncpg.Pool) -> None:
    given = Settings.model_validate({"endpoint_token": "hush-hush", "poll_max": 7.0, "dsn": "postgresql://a:hush@b/c"})
    async with (
        serving(pool, settings=ApiSettings.of(given)) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        info = await AdminServiceStub(channel).GetServerInfo(GetServerInfoRequest())
    assert info.schema_version == int(load_migrations()[-1].version)
    assert int(info.database_version.split(".")[0]) >= 15
    assert info.version
    told = {one.name: (one.value, one.is_set) for one in info.settings}
    assert told["MAILING_POLL_MAX"] == ("7", True)
    assert told["MAILING_POLL_MIN"] == ("0.01", False)
    assert told["MAILING_ENDPOINT_TOKEN"] == ("***", True)
    assert "hush" not in str(info)


@pytest.fixture
async def mailings(pool: asyncpg.Pool) -> object:
    async with serving(pool) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = MailingServiceStub(channel)
        for title, text in (("Winter SALE", "Hello"), ("Spring", "100% of the sale_price"), ("Сводка", "Привет")):
            await stub.CreateMailing(CreateMailingRequest(mailing=new_mailing(text, title=title, start="+1h")))
        yield stub


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sale", ["Spring", "Winter SALE"]),
        ("sale_", ["Spring"]),
        ("0%", ["Spring"]),
        ("СВОД", ["Сводка"]),
        ("summer", []),
        ("", ["Сводка", "Spring", "Winter SALE"]),
    ],
)
async def test_mailings_are_found_by_their_words(mailings: MailingServiceStub, query: str, found: list[str]) -> None:
    """Signs that are special in patterns stand for themselves, and case does not matter."""
    answer = await mailings.ListMailings(ListMailingsRequest(query=query))  # type: ignore[misc]
    assert [one.title for one in answer.mailings] == found


async def test_a_page_token_belongs_to_its_words(mailings: MailingServiceStub) -> None:
    first = await mailings.ListMailings(ListMailingsRequest(query="sale", page_size=1))  # type: ignore[misc]
    request = ListMailingsRequest(query="sale", page_size=1, page_token=first.next_page_token)
    assert [one.title for one in (await mailings.ListMailings(request)).mailings] == ["Winter SALE"]  # type: ignore[misc]
    for query in ("", "winter"):
        request.query = query
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await mailings.ListMailings(request)  # type: ignore[misc]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
