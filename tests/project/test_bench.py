"""The benchmarks' instruments read true: quantiles, CPU time, comparison, drawings."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence

import pytest

from bench.__main__ import MODULES, main
from bench.endpoint import find_nginx, start_endpoint
from bench.measure import cpu_seconds, descendants, machine, peak_rss_mb, quantile
from bench.plot import Bar, Line, bars_svg, lines_svg
from bench.service import BenchmarkFailed
from bench.throughput import beside, compare, medians, wrong_bodies
from bench.wrk import MESSAGE_ID

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.5, 5), ([3, 1, 2], 0.5, 2), (range(1, 101), 0.99, 99), (range(1, 101), 0.5, 50), ([1, 2], 1.0, 2)],
)
def test_a_quantile_is_the_smallest_value_that_covers_the_share(
    values: Sequence[float], share: float, expected: float
) -> None:
    assert quantile(values, share) == expected


def test_ledger_and_endpoint_agree_only_when_every_id_came_once() -> None:
    ledger = Counter([1, 2, 3])
    assert compare(ledger, Counter([3, 2, 1]))["settle_to_ledger_exact"]
    assert not compare(ledger, Counter([1, 2]))["settle_to_ledger_exact"]
    assert not compare(ledger, Counter([1, 2, 3, 4]))["settle_to_ledger_exact"]
    twice = compare(ledger, Counter([1, 2, 3, 3]))
    assert (twice["settle_to_ledger_exact"], twice["endpoint_duplicates"]) == (False, 1)


def test_the_yardstick_s_requests_are_no_deliveries() -> None:
    assert compare(Counter([1]), Counter({1: 1, MESSAGE_ID: 1000}))["settle_to_ledger_exact"]


def test_each_message_must_carry_its_own_phone_and_text() -> None:
    phones = {16: "79000000016", 17: "79000000017"}
    good = {n: b'{"id":%d,"phone":%b,"text":"Hello %b"}' % (n, phones[n].encode(), phones[n].encode()) for n in phones}
    assert wrong_bodies(good.items(), phones) == 0
    assert wrong_bodies([(16, good[17]), (17, good[16])], phones) == 2
    assert wrong_bodies([(16, b'{"id":16,"phone":79000000016,"text":"Hello 79000000017"}')], phones) == 1
    assert wrong_bodies([(16, b""), (18, good[16]), (MESSAGE_ID, b"")], phones) == 2


@pytest.mark.parametrize("kind", ["nginx", "small"])
def test_an_endpoint_keeps_every_request_with_its_body(kind: str) -> None:
    if kind == "nginx" and not find_nginx():
        pytest.skip("nginx is not installed")
    endpoint = start_endpoint(kind)
    try:
        body = '{"id":5,"phone":79,"text":"\\"Ж\\" \\u0000 ' + "x" * 40_000 + '"}'
        for _ in range(2):
            request = urllib.request.Request(f"{endpoint.url}5", body.encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.read() == b'{"code":0,"message":"OK"}'
        assert list(endpoint.requests()) == [(5, body.encode())] * 2
    finally:
        endpoint.stop()


def test_several_deliveries_give_medians_beside_the_better_yardstick() -> None:
    rounds = [beside({"delivered_per_s": rate, "names": [rate]}, 100.0, None, 200.0) for rate in (50, 80, 60)]
    assert medians(rounds) == {"delivered_per_s": 60, "names": [60], "wrk_per_s": 200, "ratio_to_wrk": 0.3}
    assert beside({"delivered_per_s": 50}, None) == {"delivered_per_s": 50}


def test_a_benchmark_that_did_not_happen_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: Sequence[str]) -> None:
        raise BenchmarkFailed("ledger and endpoint differ")

    monkeypatch.setattr("bench.throughput.main", fail)
    assert main(["throughput"]) == 1
    assert "ledger and endpoint differ" in capsys.readouterr().err


@linux
def test_cpu_time_and_children_are_read_off_a_live_process() -> None:
    loop = [sys.executable, "-c", "print(sum(range(5_000_000)), flush=True); input()"]
    with subprocess.Popen(loop, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in descendants(os.getpid())
        assert cpu_seconds(process.pid) > 0
        assert peak_rss_mb(process.pid) > 1
        process.communicate("\n")
    assert cpu_seconds(process.pid) == 0


@linux
def test_the_machine_is_described() -> None:
    assert "cores of" in machine()


@linux
@pytest.mark.parametrize(
    "drawing",
    [
        bars_svg("Rates <&>", "messages/s", [Bar("ours", 50_000), Bar("nobody", 0)]),
        lines_svg("Rate", "messages", ["10,000", "100,000"], [Line("messages/s", [1, 2])]),
        lines_svg("One point", "messages", ["10,000"], [Line("messages/s", [0])]),
    ],
    ids=["bars", "lines", "one point"],
)
def test_a_drawing_is_well_formed_and_names_the_machine(drawing: str) -> None:
    texts = [element.text or "" for element in ElementTree.fromstring(drawing).iter()]
    assert any("Python" in text for text in texts)


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert name in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "throughput" in capsys.readouterr().err
