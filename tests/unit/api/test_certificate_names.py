"""A certificate's names are the DNS names that it was given for, and nothing that only looks like one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from server.api.interceptors.identity import dns_names

KEY = generate_private_key(SECP256R1())


def certificate(*names: x509.GeneralName) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 1, now, now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "name",
    [
        x509.UniformResourceIdentifier("shop.example"),
        x509.RFC822Name("shop.example"),
        x509.DNSName("shop.example\0.elsewhere.example"),
        x509.DNSName("shop.example\n"),
        x509.DNSName(""),
        x509.DNSName("x" * 256),
    ],
    ids=["uri", "email", "nul", "newline", "empty", "long"],
)
def test_what_only_looks_like_the_name_of_a_host_is_none(name: x509.GeneralName) -> None:
    """Fails with the list that gRPC makes of all alternative names."""
    assert dns_names(certificate(name, x509.DNSName("till.example"))) == ("till.example",)


def test_the_common_name_is_no_name() -> None:
    assert dns_names(certificate()) == ()
