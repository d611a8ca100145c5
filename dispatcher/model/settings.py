"""How a dispatcher works: the settings it is started with, and what is set for all at run time."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """How the dispatcher looks for work and how much it takes on. Times are seconds.

    `poll_min` and `poll_max` bound the idle wait, `recheck_min` and `recheck_max` the wait
    between two looks for new clients of an open mailing. `lease` is how long a claimed batch
    belongs to its holder. `max_concurrency` bounds the requests in flight per endpoint. A text
    that takes more than `max_sms_segments` SMS is not sent.
    """

    poll_min: float = 0.01
    poll_max: float = 5.0
    recheck_min: float = 1.0
    recheck_max: float = 60.0
    lease: float = 60.0
    max_concurrency: int = 1024
    max_sms_segments: int = 128


@dataclass(frozen=True, slots=True)
class SettingOverrides:
    """What is set at run time for all replicas; None: as each one was started. Times are seconds.

    `version` grows with every change.
    """

    version: int = 0
    poll_min: float | None = None
    poll_max: float | None = None
    recheck_min: float | None = None
    recheck_max: float | None = None
    max_concurrency: int | None = None

    def of(self, settings: DispatchSettings) -> DispatchSettings:
        """Return the settings in force for a replica that was started with `settings`."""
        poll_min = settings.poll_min if self.poll_min is None else self.poll_min
        poll_max = settings.poll_max if self.poll_max is None else self.poll_max
        recheck_min = settings.recheck_min if self.recheck_min is None else self.recheck_min
        recheck_max = settings.recheck_max if self.recheck_max is None else self.recheck_max
        return replace(
            settings,
            poll_min=poll_min,
            # Replicas may have been started with other settings than the one that checked these.
            poll_max=max(poll_min, poll_max),
            recheck_min=recheck_min,
            recheck_max=max(recheck_min, recheck_max),
            max_concurrency=self.max_concurrency or settings.max_concurrency,
        )


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most so many messages to one client within `period` seconds, over all mailings."""

    messages: int
    period: float
