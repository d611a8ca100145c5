"""TLS and callers' certificates over real connections, and files that change meanwhile."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mailing.v1.mailing_service_pb2 import CreateMailingRequest, ListMailingsRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.api.tls import ServerTls
from server.auth import Authenticator, BadFile
from tests.integration.api.calls import mailing, refused
from tests.integration.auth.conftest import Start, Tokens
from tests.support.tls import TlsFolder


@pytest.fixture
def tls(tmp_path: Path) -> TlsFolder:
    return TlsFolder(tmp_path)


def secure_channel(tls: TlsFolder, port: int, chain: bytes | None = None, key: bytes | None = None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(tls.ca_file.read_bytes(), key, chain)
    return grpc.aio.secure_channel(f"localhost:{port}", credentials)


async def listed(channel: grpc.aio.Channel, metadata: Any = None) -> Any:
    stub: Any = MailingServiceStub(channel)
    return await stub.ListMailings(ListMailingsRequest(), metadata=metadata, timeout=10)


async def test_calls_are_served_over_tls_and_not_without(start: Start, tls: TlsFolder) -> None:
    guarded = await start(tls=ServerTls(tls.files))
    async with secure_channel(tls, guarded.port) as channel:
        await listed(channel)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await listed(guarded.channel)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_nothing_older_than_tls_1_2_is_spoken(start: Start, tls: TlsFolder) -> None:
    """The service hangs up; were it OpenSSL on our side that refuses, it would say that there is no protocol."""
    guarded = await start(tls=ServerTls(tls.files))
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        assert (await asyncio.to_thread(tls.handshake, guarded.port, version))[0] == name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ssl.SSLError, match="EOF occurred"):
            await asyncio.to_thread(tls.handshake, guarded.port, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


async def test_new_connections_get_the_new_certificate_invalid_files_not(
    start: Start, tls: TlsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when the files are read once only."""
    guarded = await start(tls=ServerTls(tls.files))

    async def served() -> bytes | None:
        return (await asyncio.to_thread(tls.handshake, guarded.port))[1]

    async with secure_channel(tls, guarded.port) as old:
        await listed(old)
        first = await served()
        tls.renew()
        second = await served()
        assert second != first
        assert await served() == second
        await listed(old)  # what is connected stays so

    tls.files.key.write_bytes(tls.authority.issue_cert("localhost").private_key_pem.bytes())
    assert await served() == second
    tls.files.certificate.unlink()
    assert await served() == second
    assert "is not the key of the certificate" in caplog.text
    assert "cannot be read" in caplog.text
    assert "PRIVATE" not in caplog.text
    tls.renew()
    assert await served() not in (first, second, None)


async def test_callers_need_a_certificate_of_the_authority(start: Start, tls: TlsFolder) -> None:
    files = replace(tls.files, client_authority=tls.ca_file)
    guarded = await start(tls=ServerTls(files), authenticator=Authenticator(certificates=True))
    async with secure_channel(tls, guarded.port, *tls.caller("shop.example")) as channel:
        await listed(channel)
    for pair in ((None, None), tls.caller("shop.example", authority=trustme.CA())):
        async with secure_channel(tls, guarded.port, *pair) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await listed(channel)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_has_the_scopes_of_its_line_and_a_token_goes_first(
    start: Start, tls: TlsFolder, tokens: Tokens
) -> None:
    tokens.path.write_text("shop.example certificate mailings.read\nname certificate mailings.write\n")
    files = replace(tls.files, client_authority=tls.ca_file)
    ops, clerk = tokens.make("ops", "all"), tokens.make("clerk", "clients.read")
    guarded = await start(tls=ServerTls(files), authenticator=tokens.authenticator(certificates=True))

    async def create(channel: grpc.aio.Channel, metadata: Any = None) -> None:
        stub: Any = MailingServiceStub(channel)
        await stub.CreateMailing(CreateMailingRequest(mailing=mailing()), metadata=metadata)

    async with secure_channel(tls, guarded.port, *tls.caller("10.0.0.1", "shop.example")) as channel:
        await listed(channel)
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await create(channel)
        await create(channel, ops)
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await listed(channel, clerk)
        with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):
            await listed(channel, [("authorization", "Bearer mlg_unknown")])
    async with secure_channel(tls, guarded.port, *tls.caller("other.example", common_name="shop.example")) as channel:
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            await listed(channel)
    for names in ([], ["10.0.0.1"], ["name@shop.example"]):
        async with secure_channel(tls, guarded.port, *tls.caller(*names, common_name="name")) as channel:
            with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):  # only the names of hosts count
                await create(channel)


def _encrypted(pem: bytes) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def test_files_that_cannot_be_used_are_named(tls: TlsFolder, tmp_path: Path) -> None:
    certificate, key = tls.files.certificate, tls.files.key
    bad, other = tmp_path / "bad.pem", tmp_path / "other.key"
    bad.write_text("no PEM")
    other.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    locked = tmp_path / "locked.key"
    locked.write_bytes(_encrypted(key.read_bytes()))
    for files, sentence in (
        (replace(tls.files, certificate=tmp_path / "none.pem"), "none.pem cannot be read: no such file or directory."),
        (replace(tls.files, certificate=bad), f"{bad} holds no certificate in PEM form."),
        (replace(tls.files, key=bad), f"{bad} holds no private key in PEM form."),
        (replace(tls.files, key=locked), f"{locked} is encrypted: the service cannot ask for its password."),
        (replace(tls.files, key=other), f"{other} is not the key of the certificate in {certificate}."),
        (replace(tls.files, client_authority=bad), f"{bad} holds no certificate in PEM form."),
        (replace(tls.files, client_authority=key), f"{key} holds no certificate in PEM form."),
    ):
        with pytest.raises(BadFile) as raised:
            ServerTls(files)
        assert str(raised.value).endswith(sentence)
