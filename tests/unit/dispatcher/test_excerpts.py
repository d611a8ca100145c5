"""What is stored of answers shows neither the endpoint's secrets nor whom a message was for."""

from __future__ import annotations

import pytest

from dispatcher.excerpts import MASK, Excerpts
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.request_batches import BatchText
from dispatcher.model.requests import RequestText, compile_request
from dispatcher.verdict import MAX_EXCERPT

PHONE = "79261234567"


def excerpts(token: str = "sekret-token", **changes: object) -> Excerpts:
    return Excerpts(Endpoint("x", "http://127.0.0.1:1/", token, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written",
    [
        PHONE,
        "+7 (926) 123-45-67",
        "7_9_2_6_1_2_3_4_5_6_7",
        "7.926 / 123 - 45 - 67",
        "%2B79261234567",
        "8 926 123-45-67",
        "9261234567",
        "\uff17\uff19\uff12\uff16\uff11\uff12\uff13\uff14\uff15\uff16\uff17",
    ],
)
def test_the_phone_is_hidden_however_it_is_written(written: str) -> None:
    said = excerpts().of(f"no route to {written} for sekret-token, code 12345".encode(), PHONE)
    assert f"for {MASK}, code 12345" in said
    assert MASK in said.partition("for")[0]
    assert "1234567" not in "".join(filter(str.isdigit, said))


def test_numbers_beside_the_phone_stay() -> None:
    assert excerpts().of(b"[17, 79261234567, 30001, 9261234567]", PHONE) == f"[17, {MASK}, 30001, {MASK}]"


def test_short_secrets_and_phones_are_left_alone() -> None:
    assert excerpts("no").of(b"code 12, no", "12") == "code 12, no"


@pytest.mark.parametrize("filler", ["-", "\u0416", "{token}"])
def test_no_part_of_a_secret_is_left_where_an_excerpt_is_cut(filler: str) -> None:
    """Fails when the excerpt is cut first: what is left at its end is no whole token."""
    token = "s3cret" * 5
    for before in range(MAX_EXCERPT - 40, MAX_EXCERPT + 10):
        body = filler.format(token=token) * before + token * 40
        said = excerpts(token).of(body.encode(), PHONE)
        assert len(said) <= MAX_EXCERPT
        assert "s3c" not in said


def test_secrets_of_a_description_are_hidden_in_every_spelling() -> None:
    secrets = ("key/with+signs=", "pass word")
    body = r'"key\/with+signs=" key%2Fwith%2Bsigns%3D pass+word pass%20word'
    said = excerpts(secrets=secrets).of(f"{body} {' '.join(secrets)}".encode(), PHONE)
    assert "with" not in said
    assert "word" not in said


def test_addresses_that_a_request_held_are_hidden() -> None:
    text = RequestText("http://127.0.0.1:1/", json={"to": "{attributes.email}", "about": "{title}"})
    made = excerpts(request=compile_request(text))
    said = made.of(b'{"message":"anna@example.com is inactive","title":"Spring news"}', PHONE, made_values(text))
    assert said == f'{{"message":"{MASK} is inactive","title":"Spring news"}}'


def made_values(text: RequestText) -> tuple[str, ...]:
    return compile_request(text).values_of("Spring news", {"email": "anna@example.com"})


def test_an_answer_to_many_messages_shows_nobody_of_them() -> None:
    """Fails when only the phone of the message itself is looked for."""
    text = RequestText("http://127.0.0.1:1/", json=[{"to": "{phone}"}], batch=BatchText(10))
    said = excerpts(request=compile_request(text)).of(b'{"invalid":["79261234567","79039999999"],"code":21}', PHONE)
    assert said == f'{{"invalid":["{MASK}"],"code":21}}'
