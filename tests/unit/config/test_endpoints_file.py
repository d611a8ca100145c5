"""The endpoints file: what it may say, and what is said when it may not."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.model.endpoints import DEFAULT_SUCCESS, Endpoint, SuccessRule
from dispatcher.model.quotas import DayLimit
from server.config import ConfigError, load_settings
from server.endpoints.endpoints_file import MAX_TOKEN_BYTES, read_endpoints
from server.endpoints.senders import configured_endpoints, make_endpoints
from tests.support.documents import page, section

PAGE = section(page("endpoints-and-delivery"), "## Configure endpoints")

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "endpoints.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def sms(lines: str) -> str:
    return f"[endpoints.sms]\nurl = 'http://host/'\n{lines}\n"


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read_endpoints(path)
    return raised.value.problems


def test_an_endpoint_needs_nothing_but_a_url(write: Write) -> None:
    [found] = read_endpoints(write(sms("")))
    assert found[:3] == (Endpoint("sms", "http://host/", ""), "fast", str(write(sms(""))))


def test_every_key_arrives(write: Write, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    text = """
        token = "t0ken"
        timeout = 5
        connect_timeout = 0.5
        ca_file = "ca.pem"
        transport = "HTTPX"
        max_rate = 12.5
        max_concurrency = 7
        success = { statuses = [202], field = "result", values = ["ok", 0] }
    """
    [found] = read_endpoints(write(sms(text)))
    rule = SuccessRule(frozenset({202}), True, "result", frozenset({"ok", 0}))
    ca_file = str(tmp_path / "ca.pem")
    assert found.transport == "httpx"
    assert found.endpoint == Endpoint("sms", "http://host/", "t0ken", 5.0, 0.5, 7, 65536, ca_file, 12.5, rule)


def test_a_daily_quota_counts_the_days_of_its_zone(write: Write) -> None:
    [found] = read_endpoints(write(sms("max_per_day = 5000\nmax_per_day_timezone = 'Europe/Moscow'")))
    assert found.endpoint.day_limit == DayLimit(5000, "Europe/Moscow")
    assert read_endpoints(write(sms("max_per_day = 5")))[0].endpoint.day_limit == DayLimit(5, "UTC")
    assert read_endpoints(write(sms("max_per_day_timezone = 'UTC'")))[0].endpoint.day_limit is None


def test_without_a_rule_an_endpoint_succeeds_as_the_protocol_says(write: Write) -> None:
    [found] = read_endpoints(write(sms("success = {}")))
    assert found.endpoint.success is DEFAULT_SUCCESS
    [found] = read_endpoints(write(sms("success = { statuses = [204], body = false }")))
    assert found.endpoint.success == SuccessRule(frozenset({204}), needs_body=False)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_file_is_relative_to_the_file_and_its_newline_is_cut(end: str, write: Write, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_bytes(b"t0ken" + end.encode())
    [found] = read_endpoints(write(sms("token_file = 'secrets/token'")))
    assert found.endpoint.token == "t0ken"


@pytest.mark.parametrize("data", [b"", b"\n", b"two words", b"t\xf6ken", b"a\nb", b"x" * (MAX_TOKEN_BYTES + 1)])
def test_a_file_that_holds_no_token_is_rejected_and_not_shown(data: bytes, write: Write, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(data)
    [sentence] = problems(write(sms("token_file = 'token'")))
    assert re.search(r"endpoint sms: token_file should be the path of a file .*, not 'token'\.$", sentence)


def test_connecting_takes_no_longer_than_all(write: Write) -> None:
    [found] = read_endpoints(write(sms("timeout = 1")))
    assert found.endpoint.connect_timeout == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("token = 5", "token should be a token of printable ASCII characters without spaces"),
        ("token = 'two words'", "token should be a token of printable ASCII characters without spaces"),
        ("token_file = 'nowhere'", "token_file should be the path of a file"),
        ("token_file = '~nobody-here/token'", "token_file should be the path of a file"),
        ("token_file = 5", "token_file should be the path of a file"),
        ("token_file = '.'", "token_file should be the path of a file"),
        ("token = 'a'\ntoken_file = 'b'", "token_file should be the path of a file"),
        ("timeout = 0", "timeout should be a number of seconds from 0.05 to 300, not 0"),
        ("timeout = '5'", "timeout should be a number of seconds from 0.05 to 300, not '5'"),
        ("timeout = nan", "timeout should be a number of seconds"),
        ("connect_timeout = 301", "connect_timeout should be a number of seconds from 0.05 to 300, not 301"),
        ("ca_file = 'nowhere.pem'", "ca_file should be the path of a PEM file that can be read, not 'nowhere.pem'"),
        ("transport = 'pigeon'", "transport should be fast or httpx, not 'pigeon'"),
        (
            "max_rate = -1",
            "max_rate should be 0 (no limit) or a number of messages a second from 0.0001 to 1000000, not -1",
        ),
        ("max_rate = 1e12", "max_rate should be 0 (no limit)"),
        ("max_rate = 5.55e-17", "max_rate should be 0 (no limit)"),
        ("max_rate = inf", "max_rate should be 0 (no limit)"),
        ("max_rate = true", "max_rate should be 0 (no limit)"),
        ("max_per_day = -1", "max_per_day should be a whole number from 0, for no limit, to 1000000000000, not -1"),
        (
            "max_per_day_timezone = 'Mars/Base'",
            "max_per_day_timezone should be the IANA name of a time zone, such as Europe/Moscow, not 'Mars/Base'",
        ),
        ("max_concurrency = 0", "max_concurrency should be a whole number from 1 to 100000, not 0"),
        ("max_concurrency = 1.5", "max_concurrency should be a whole number from 1 to 100000, not 1.5"),
        ("success = 200", "success should be a table with statuses, body, field, at and values, not 200"),
        ("success = { statuses = [] }", "success.statuses should be a list of HTTP statuses from 100 to 599"),
        (
            "success = { statuses = [600] }",
            "success.statuses should be a list of HTTP statuses from 100 to 599, not 600",
        ),
        ("success = { body = 'no' }", "success.body should be true or false, not 'no'"),
        ("success = { field = '' }", "success.field should be the name of a field of the answer's JSON object, not ''"),
        ("success = { values = [] }", "success.values should be a list of numbers, texts, true and false"),
        ("success = { values = [[1]] }", "success.values should be a list of numbers, texts, true and false"),
        ("success = { body = false, field = 'x' }", "success has a field or values, but body = false looks at no body"),
        ("timout = 5", "timout is no key of this table: did you mean timeout?"),
        ("zzz = 5", "zzz is no key of this table: there are url, token, token_file,"),
        ("success = { stauses = [200] }", "success.stauses is no key of this table: did you mean statuses?"),
    ],
)
def test_a_bad_key_is_one_sentence_with_file_endpoint_and_key(line: str, expected: str, write: Write) -> None:
    path = write(sms(line))
    [sentence] = problems(path)
    assert sentence.startswith(f"{path}: endpoint sms: {expected}")
    assert sentence.endswith((".", "?"))


@pytest.mark.parametrize(
    "url", ["ftp://host/", "http://", "http://user:hidden@host/", "http://host:99999/", "http://host/a b", "nonsense"]
)
def test_a_bad_url_is_reported(url: str, write: Write) -> None:
    [sentence] = problems(write(f"[endpoints.sms]\nurl = '{url}'"))
    assert "endpoint sms: url should be an http:// or https:// address" in sentence
    assert "hidden" not in sentence


def test_a_missing_url_is_reported(write: Write) -> None:
    [sentence] = problems(write("[endpoints.sms]\ntoken = 'hidden'"))
    assert "endpoint sms: url is missing: an http:// or https:// address" in sentence


def test_two_tokens_are_one_too_many(write: Write, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hidden")
    [sentence] = problems(write(sms("token = 'hidden'\ntoken_file = 'token'")))
    assert sentence.endswith("endpoint sms: token and token_file are both given, one should go.")


def test_every_problem_of_every_endpoint_is_reported_at_once(write: Write) -> None:
    text = sms("timeout = 0\nmax_rate = -1") + "[endpoints.push]\nurl = 'http://host/'\ntransport = 'x'\n"
    assert [re.findall(r"endpoint (\w+): (\w+)", sentence) for sentence in problems(write(text))] == [
        [("sms", "timeout")],
        [("sms", "max_rate")],
        [("push", "transport")],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("url = ", "is not TOML: "),
        ("[endpoints.sms]\nurl = 'a'\nurl = 'b'", "is not TOML: "),
        ("", "has no endpoints: each is a table [endpoints.NAME]."),
        ("endpoints = 5", "has no endpoints: each is a table [endpoints.NAME]."),
        ("[sms]\nurl = 'http://host/'", ": sms is not known here: an endpoint is a table [endpoints.sms]."),
        ("[endpoints]\nsms = 'http://u:hidden@host/'", ": endpoint sms: it should be a table with a url."),
        ("[endpoints.'a b']\nurl = 'http://host/'", ": endpoint 'a b': the name should be 1 to 64 letters"),
        ("[endpoints.'']\nurl = 'http://host/'", ": endpoint '': the name should be 1 to 64 letters"),
    ],
)
def test_a_file_that_is_no_list_of_endpoints_is_reported(text: str, expected: str, write: Write) -> None:
    path = write(text)
    [sentence] = problems(path)
    assert sentence.startswith(f"{path}{expected}" if expected[0] == ":" else f"{path} {expected}")
    assert "hidden" not in sentence


def test_a_file_of_bytes_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_bytes(b"\xff\xfe")
    assert problems(path)[0].startswith(f"{path} cannot be read: ")


def test_secrets_are_never_shown(write: Write) -> None:
    """Fails when `Endpoint` shows its URL as it is, and when a bad value is always told."""
    good = write("[endpoints.sms]\nurl = 'http://host/?key=hidden&id='\ntoken = 'hidden'")
    assert "hidden" not in repr(read_endpoints(good)) + str(read_endpoints(good))
    bad = write("[endpoints.sms]\nurl = 'ftp://host/?key=hidden&id='\ntoken = 'hid den'\nhidden2 = 'hidden hidden'")
    assert len(problems(bad)) == 3
    assert not re.search(r"hid ?den\b", " ".join(problems(bad)))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/send/", "http://host/send/"),
        ("http://host?id=", "http://host?id="),
        ("https://host:1/a?key=s3&user=me&id=", "https://host:1/a?key=***&user=***&id="),
        ("https://host/a?s3cret", "https://host/a?***"),
        ("https://host/a?", "https://host/a?"),
        ("https://u:p@w@host/a?b=c", "https://host/a?b=***"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert Endpoint("sms", url, "").shown_url == shown


def test_the_environment_s_endpoint_stands_beside_those_of_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILING_ENDPOINTS_FILE", str(write(sms("token = 'other'"))))
    assert [one.endpoint.name for one in configured_endpoints(load_settings())] == ["sms"]
    monkeypatch.setenv("MAILING_ENDPOINT_URL", "http://env/")
    monkeypatch.setenv("MAILING_ENDPOINT_TOKEN", "env")
    monkeypatch.setenv("MAILING_ENDPOINT_TIMEOUT", "1")
    found = {one.endpoint.name: one.endpoint for one in configured_endpoints(load_settings())}
    assert {name: (one.token, one.total_timeout) for name, one in found.items()} == {
        "default": ("env", 1.0),
        "sms": ("other", 10.0),
    }


def test_default_is_set_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("[endpoints.default]\nurl = 'http://host/'")
    monkeypatch.setenv("MAILING_ENDPOINTS_FILE", str(path))
    assert [one.endpoint.url for one in configured_endpoints(load_settings())] == ["http://host/"]
    monkeypatch.setenv("MAILING_ENDPOINT_URL", "http://env/")
    with pytest.raises(ConfigError) as raised:
        configured_endpoints(load_settings())
    assert raised.value.problems == [
        f"{path}: endpoint default is the endpoint of MAILING_ENDPOINT_URL, which is set, too: one should go."
    ]


def test_the_endpoint_of_the_environment_may_have_a_daily_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_ENDPOINT_URL", "http://env/")
    assert [one.endpoint.day_limit for one in configured_endpoints(load_settings())] == [None]
    monkeypatch.setenv("MAILING_ENDPOINT_MAX_PER_DAY", "500")
    assert [one.endpoint.day_limit for one in configured_endpoints(load_settings())] == [DayLimit(500, "UTC")]
    monkeypatch.setenv("MAILING_ENDPOINT_MAX_PER_DAY_TIMEZONE", "Asia/Tokyo")
    assert [one.endpoint.day_limit for one in configured_endpoints(load_settings())] == [DayLimit(500, "Asia/Tokyo")]
    monkeypatch.setenv("MAILING_ENDPOINT_MAX_PER_DAY", "-1")
    monkeypatch.setenv("MAILING_ENDPOINT_MAX_PER_DAY_TIMEZONE", "Mars/Base")
    with pytest.raises(ConfigError) as raised:
        load_settings()
    assert [problem.split(" ")[0] for problem in raised.value.problems] == [
        "MAILING_ENDPOINT_MAX_PER_DAY",
        "MAILING_ENDPOINT_MAX_PER_DAY_TIMEZONE",
    ]


def test_a_file_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_ENDPOINTS_FILE", "/does/not/exist.toml")
    with pytest.raises(ConfigError, match="MAILING_ENDPOINTS_FILE should be the path of a TOML file"):
        load_settings()


async def test_each_endpoint_gets_a_sender(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = sms("transport = 'httpx'") + "[endpoints.default]\nurl = 'http://host/'"
    monkeypatch.setenv("MAILING_ENDPOINTS_FILE", str(write(text)))
    made = make_endpoints(configured_endpoints(load_settings()))
    assert [(one.name, one.max_concurrency, type(sender).__name__) for one, sender in made] == [
        ("sms", 64, "HttpxSender"),
        ("default", 1024, "FastSender"),
    ]
    for _, sender in made:
        await sender.close()


async def test_what_no_sender_takes_is_reported_for_every_endpoint(write: Write, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    text = sms("").replace("host", "no_host!") + "[endpoints.tls]\nurl = 'https://host/'\nca_file = 'empty.pem'\n"
    with pytest.raises(ConfigError) as raised:
        make_endpoints(read_endpoints(write(text)))
    assert [
        re.findall(r"endpoints.toml cannot be used: endpoint '(\w+)': (\w+)", one) for one in raised.value.problems
    ] == [
        [("sms", "url")],
        [("tls", "ca_file")],
    ]


def test_the_page_shows_a_file_that_works_and_names_every_key(write: Write, tmp_path: Path) -> None:
    shown = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "secrets").mkdir()
    for table in tomllib.loads(shown)["endpoints"].values():
        for key in {"token_file", "ca_file"} & table.keys():
            (tmp_path / table[key]).write_text("t0ken\n")
    assert [one.endpoint.name for one in read_endpoints(write(shown))] == ["default", "push", "legacy"]
    [told] = problems(write(sms("zzz = 1")))
    for key in told.partition("there are ")[2].rstrip(".").split(", "):
        assert re.search(rf"^\| .*`{key}`.* \|", PAGE + page("gateways"), re.MULTILINE)
