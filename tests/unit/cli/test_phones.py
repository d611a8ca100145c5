"""Phones as people write them: completed by their country, and refused where they can be read in two ways."""

from __future__ import annotations

import pytest

from mailing.phones import Country, phone_digits


@pytest.mark.parametrize(
    ("written", "country", "digits"),
    [
        ("+7 (916) 123-45-67", None, "79161234567"),
        ("00 49 151/2345678", "RU", "491512345678"),
        ("79161234567", None, "79161234567"),
        ("8 (916) 123-45-67", "RU", "79161234567"),
        ("8 (916) 123-45-67", "7", "79161234567"),
        ("916 123 45 67", "ru", "79161234567"),
        ("79161234567", "RU", "79161234567"),
        ("(202) 555-0143", "US", "12025550143"),
        ("1 202 555 0143", "US", "12025550143"),
        ("0151 23456789", "DE", "4915123456789"),
        ("07911 123456", "GB", "447911123456"),
        ("06 1234 5678", "IT", "390612345678"),
        ("11 96123-4567", "BR", "5511961234567"),
        ("not a phone", "RU", "notaphone"),
    ],
)
def test_a_phone_is_its_digits_with_the_country_code(written: str, country: str | None, digits: str) -> None:
    """Fails for Italy where a leading 0 is always cut, and for Brazil where lengths alone decide."""
    assert phone_digits(written, country and Country(country)) == digits  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "country", "sentence"),
    [
        ("8 916 123-45-67", None, "is a national number, since it begins with 89: write it with +"),
        ("0151 23456789", None, "since it begins with 0"),
        ("4915123456789", "DE", "can be a number of DE or one with another country code: write it with +"),
        ("123", "RU", "is no number of RU"),
    ],
)
def test_what_cannot_be_completed_is_refused(written: str, country: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("+", r"\+")) as raised:
        phone_digits(written, country and Country(country))  # type: ignore[arg-type]
    assert written not in str(raised.value)


@pytest.mark.parametrize("name", ["Russia", "XX", "0", ""])
def test_what_is_no_country_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="is no country: give its two letters, such as RU"):
        Country(name)
