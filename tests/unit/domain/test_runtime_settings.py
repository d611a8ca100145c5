"""Settings at run time: what they do to those a replica was started with."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.concurrency_limiter import ConcurrencyLimit
from dispatcher.model.settings import DispatchSettings, SettingOverrides
from dispatcher.model.states import ErrorClass
from server.domain.errors import InvalidFields
from server.domain.replicas import amended_overrides, check_overrides
from server.domain.validation import Violations

STARTED = DispatchSettings(poll_min=0.01, poll_max=5.0, recheck_min=1.0, recheck_max=60.0, max_concurrency=64)


def test_what_is_not_set_stays_as_it_was_started() -> None:
    assert SettingOverrides(version=9).of(STARTED) == STARTED
    assert SettingOverrides(poll_max=1.0).of(STARTED).poll_max == 1.0
    assert SettingOverrides(max_concurrency=2).of(STARTED).max_concurrency == 2


def test_a_replica_started_with_other_settings_keeps_its_bounds_in_order() -> None:
    settings = SettingOverrides(poll_min=30.0, recheck_min=100.0).of(STARTED)
    assert (settings.poll_min, settings.poll_max) == (30.0, 30.0)
    assert (settings.recheck_min, settings.recheck_max) == (100.0, 100.0)


@pytest.mark.parametrize(
    ("values", "paths"),
    [
        ({"poll_min": 0.009}, ["settings.poll_min"]),
        ({"poll_max": 60.1}, ["settings.poll_max"]),
        ({"recheck_min": 0.05, "recheck_max": 3601.0}, ["settings.recheck_min", "settings.recheck_max"]),
        ({"max_concurrency": 10_001}, ["settings.max_concurrency"]),
        ({"max_concurrency": -1}, ["settings.max_concurrency"]),
        ({"poll_min": 0.01, "poll_max": 60.0, "recheck_min": 0.1, "recheck_max": 3600.0, "max_concurrency": 1}, []),
        ({"max_concurrency": 10_000}, []),
    ],
)
def test_what_is_out_of_range_is_named_with_its_range(values: dict[str, Any], paths: list[str]) -> None:
    violations = Violations()
    check_overrides(SettingOverrides(**values), violations)
    if not paths:
        assert not violations
        return
    with pytest.raises(InvalidFields) as caught:
        violations.check()
    assert [one.path for one in caught.value.violations] == paths
    assert all("must be" in one.sentence for one in caught.value.violations)


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"poll_min": 10.0}, "settings.poll_min"),
        ({"poll_max": 0.005}, "settings.poll_max"),
        ({"recheck_min": 2.0, "recheck_max": 1.5}, "settings.recheck_min"),
        ({"recheck_max": 0.5}, "settings.recheck_max"),
    ],
)
def test_a_shortest_wait_over_the_longest_one_is_rejected(values: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        amended_overrides(SettingOverrides(), SettingOverrides(**values), values, STARTED)
    assert [one.path for one in caught.value.violations] == [path]


def test_a_field_of_the_mask_that_is_not_set_goes_back() -> None:
    before = SettingOverrides(poll_min=1.0, max_concurrency=5)
    assert amended_overrides(before, SettingOverrides(), ["poll_min"], STARTED) == SettingOverrides(max_concurrency=5)


def test_a_limit_takes_another_bound_at_once() -> None:
    limit = ConcurrencyLimit(64)
    limit.bound(3)
    assert (limit.value, limit.most) == (3, 3)
    limit.bound(1000)
    tried = [limit.observe(n * 0.05, 0.001, ErrorClass.NONE, limit.value) and limit.value for n in range(1, 20)]
    assert 6 in tried
