"""The tokens file: what it may say, and what happens when it changes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from server.auth import Authenticator, BadFile
from server.auth.tokens_file import LOOK_EVERY, TokensFile, new_token, token_line
from server.domain.errors import Unauthenticated
from server.domain.principals import ALL_SCOPES, Principal, Scope


class Clock:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def test_a_new_token_is_known_by_its_line_and_the_file_does_not_hold_it(path: Path) -> None:
    first, second = new_token(), new_token()
    assert first != second
    lines = ("# callers", "", token_line("billing", first, ["mailings.read", "mailings.write"]))
    path.write_text("\n".join((*lines, token_line("ops", second, ["all"]))))
    tokens = TokensFile(path)
    scopes = frozenset({Scope.MAILINGS_READ, Scope.MAILINGS_WRITE})
    assert tokens.by_digest(digest(first)) == Principal("billing", scopes, "token")
    assert tokens.by_digest(digest(second)) == Principal("ops", ALL_SCOPES, "token")
    assert tokens.by_digest(digest(new_token())) is None
    assert first not in path.read_text()


def test_a_hash_must_agree_to_its_last_bit(path: Path) -> None:
    """Fails when the first half of the hash, by which it is found, is believed."""
    token = new_token()
    path.write_text(token_line("a", token, ["all"]))
    almost = bytearray(digest(token))
    almost[-1] ^= 1
    assert TokensFile(path).by_digest(bytes(almost)) is None


def test_a_name_may_have_two_tokens_so_that_one_can_follow_the_other(path: Path) -> None:
    old, new = new_token(), new_token()
    path.write_text(f"{token_line('a', old, ['admin'])}\n{token_line('a', new, ['admin'])}\n")
    tokens = TokensFile(path)
    assert tokens.by_digest(digest(old)) == tokens.by_digest(digest(new))


def test_a_certificate_is_known_by_any_of_its_names(path: Path) -> None:
    path.write_text("shop.example certificate clients.write\n")
    shop = Principal("shop.example", frozenset({Scope.CLIENTS_WRITE}), "certificate")
    known = Authenticator(TokensFile(path), certificates=True)
    assert known.by_certificate(["10.0.0.1", "shop.example"]) == shop
    assert known.by_certificate(["evil.example"]) == Principal("evil.example", frozenset(), "certificate")
    with pytest.raises(Unauthenticated):
        known.by_certificate([])


def test_certificates_alone_may_do_everything() -> None:
    assert Authenticator(certificates=True).by_certificate(["a"]) == Principal("a", ALL_SCOPES, "certificate")


GOOD = token_line("a", "secret-of-a", ["all"])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("billing", "three words"),
        (f"{GOOD} more", "three words"),
        ("billing mlg_the-token-itself admin", "sha256: and 64 digits in lower-case hex"),
        ("billing sha256:abc admin", "sha256: and 64 digits in lower-case hex"),
        (GOOD.upper(), "64 digits in lower-case hex"),
        (GOOD.replace(" all", " everything"), "'everything' is no scope: there are clients.read, "),
        (GOOD.replace(" all", " admin,"), "'' is no scope"),
        (GOOD.replace("a ", "ä ", 1), "the name should be 1 to 255 printable ASCII characters"),
        (f"{GOOD}\n{GOOD.replace('a ', 'b ', 1)}", "there is a line for this token already"),
        ("a certificate all\na certificate admin", "a line for the certificate of a already"),
    ],
)
def test_a_bad_line_is_named_and_never_shows_what_could_be_a_token(path: Path, line: str, sentence: str) -> None:
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(BadFile) as raised:
        TokensFile(path)
    number = 2 + line.count("\n")
    assert str(raised.value).startswith(f"{path}, line {number}: ")
    assert sentence in str(raised.value)
    assert "mlg_the-token-itself" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(BadFile, match="tokens cannot be read: no such file"):
        TokensFile(path)


@pytest.mark.parametrize(("name", "scope"), [("a b", "all"), ("", "all"), ("#a", "all"), ("a", "x"), ("a", "")])
def test_a_line_is_not_made_that_the_file_could_not_have(name: str, scope: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        token_line(name, new_token(), [scope])


def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when the file is not looked at again, and when a bad one empties the list."""
    old, new, clock = new_token(), new_token(), Clock()
    path.write_text(token_line("old", old, ["all"]))
    tokens = TokensFile(path, clock)
    path.write_text(f"{token_line('brand-new', new, ['all'])}\n")
    assert tokens.by_digest(digest(new)) is None
    clock.now += LOOK_EVERY
    assert tokens.by_digest(digest(new)) is not None
    assert tokens.by_digest(digest(old)) is None

    path.write_text("nonsense")
    clock.now += LOOK_EVERY
    assert tokens.by_digest(digest(new)) is not None
    assert "the tokens stay as they were: " in caplog.text
    path.unlink()
    clock.now += LOOK_EVERY
    assert tokens.by_digest(digest(new)) is not None
    assert "cannot be read" in caplog.text

    path.write_text(token_line("old", old, ["all"]))
    clock.now += LOOK_EVERY
    assert tokens.by_digest(digest(new)) is None
    assert tokens.by_digest(digest(old)) is not None
