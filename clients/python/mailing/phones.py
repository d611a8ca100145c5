"""Phones as people write them → the digits of E.164 numbers, which the service stores.

`+7 (916) 123-45-67` and `00 7 916 123 45 67` name their country; a national number is one of a `Country`.
Whether somebody has the number is not checked. The numbering plans of all countries come from phonenumberslite,
which is loaded when a country is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

__all__ = ["Country", "phone_digits"]

_SEPARATING = re.compile(r"[\s().\-\u2010-\u2015/]+")
_CACHED = 1024


def phone_digits(text: str, country: Country | None = None) -> str:
    """Return the digits of a phone with its country code.

    Raise ValueError for a national number without a `country`, and for one that can be read in two ways. What is no
    number at all is returned as it is: the service refuses it in its own words.
    """
    number = _SEPARATING.sub("", text)
    if number.startswith(("+", "00")):
        return number.removeprefix("+").removeprefix("00")
    if not (number.isascii() and number.isdecimal()):
        return number
    if country is not None:
        return country.complete(number)
    if is_national(number):
        start = "0" if number.startswith("0") else "89"
        raise ValueError(
            f"is a national number, since it begins with {start}: write it with + and the country code, "
            "or repeat with --country, such as RU"
        )
    return number


def is_national(digits: str) -> bool:
    """Return whether these digits have no country code: none begins with 0, or is 89."""
    return digits.startswith("0") or (len(digits) == 11 and digits.startswith("89"))


class Country:
    """How national numbers of one country are completed: by its lengths and its trunk prefix."""

    def __init__(self, name: str) -> None:
        """Take a country by its two letters, such as RU, or by its country code; raise ValueError for no country."""
        import phonenumbers

        self._library: Any = phonenumbers
        self.region = _region(phonenumbers, name)
        plan: Any = phonenumbers.PhoneMetadata.metadata_for_region(self.region)
        self._code = str(plan.country_code)
        self._lengths = frozenset(plan.general_desc.possible_length)
        self._trunk: str = plan.national_prefix or ""
        # Where a prefix changes the digits behind it, lengths say nothing.
        self._plain = plan.national_prefix_transform_rule is None

    def complete(self, digits: str) -> str:
        """Return these digits with the country code, which they may have already. Raise ValueError."""
        found = set(self._readings(digits))
        if len(found) == 1 and self._plain:
            return found.pop()
        return self._looked_up(digits)

    def _readings(self, digits: str) -> Iterator[str]:
        """Yield every reading whose length is possible."""
        if digits.startswith(self._code) and len(digits) - len(self._code) in self._lengths:
            yield digits
        if self._trunk and digits.startswith(self._trunk) and len(digits) - len(self._trunk) in self._lengths:
            yield self._code + digits.removeprefix(self._trunk)
        if len(digits) in self._lengths:
            yield self._code + digits

    @lru_cache(maxsize=_CACHED)  # noqa: B019 - a country lives as long as its import
    def _looked_up(self, digits: str) -> str:
        """Return the only reading that the numbering plans know."""
        library = self._library
        valid = {
            f"{number.country_code}{library.national_significant_number(number)}"
            for text, region in ((digits, self.region), (f"+{digits}", None))
            if (number := self._parsed(text, region)) and library.is_valid_number(number)
        }
        if len(valid) == 1:
            return valid.pop()
        if valid:
            raise ValueError(f"can be a number of {self.region} or one with another country code: write it with +")
        raise ValueError(f"is no number of {self.region}, and one of another country is written with +")

    def _parsed(self, text: str, region: str | None) -> Any:
        try:
            return self._library.parse(text, region)
        except self._library.NumberParseException:
            return None


def _region(library: Any, name: str) -> str:
    code = name.strip().removeprefix("+")
    if code.isascii() and code.isdecimal():
        region: str = library.region_code_for_country_code(int(code))
    else:
        region = code.upper()
    if region not in library.SUPPORTED_REGIONS:
        raise ValueError(f"{name!r} is no country: give its two letters, such as RU, or its country code, such as 7")
    return region
