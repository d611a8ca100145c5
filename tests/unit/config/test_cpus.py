"""How many dispatchers run beside the server where nothing is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.config import Settings
from server.config.cpus import usable_cpus


def limits(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".", 1)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8.0),
        ({"cpu_max": "max 100000\n"}, 8.0),
        ({"cpu_max": "150000 100000\n"}, 1.5),
        ({"cpu_max": "nonsense"}, 8.0),
        ({"cpu__cpu_cfs_quota_us": "50000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 0.5),
        ({"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, 8.0),
    ],
)
def test_cpus_are_those_allowed_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cpus(limits(tmp_path, **files)) == cpus


@pytest.mark.parametrize(("cpus", "processes"), [(1.0, 0), (1.9, 0), (2.0, 1), (64.0, 1)])
def test_one_process_stands_beside_the_api_where_there_is_a_cpu_for_it(
    monkeypatch: pytest.MonkeyPatch, cpus: float, processes: int
) -> None:
    monkeypatch.setattr("server.config.types.usable_cpus", lambda: cpus)
    assert Settings().dispatchers == processes
    assert Settings(dispatchers="Auto").dispatchers == processes  # type: ignore[arg-type]
    assert Settings(dispatchers="3").dispatchers == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["none", "-1", "65", "1.5", ""])
def test_other_words_and_numbers_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="dispatchers"):
        Settings(dispatchers=value)  # type: ignore[arg-type]
