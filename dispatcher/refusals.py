"""Tells refusals that speak of us from those that speak of a message.

A token that expired or a wrong URL has every message refused, and none of them is to blame. So a
run of refusals without a success between suspends the endpoint. Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from dispatcher.model.states import ErrorClass, Suspension

CREDENTIALS_RUN = 3
"""So many answers that refuse our credentials, without a success between, suspend the endpoint."""

RUN, LONGEST_RUN = 20, 640
"""Of so many answers without a success between nearly all must be the same refusal.

The number doubles after each suspension that ended with a message which was accepted: perhaps the
audience is a bad one, and the endpoint a good one.
"""

NEARLY_ALL = 0.9

TRIES = 5
"""So many attempts show that it is the message whose credentials are refused, while others are accepted."""

_FORBIDDEN = 403
_WRONG_ADDRESS = frozenset({404, 405})
_REFUSALS = frozenset({ErrorClass.REFUSED, ErrorClass.REJECTED, ErrorClass.REDIRECT})


class Refusal(NamedTuple):
    """What makes two refusals the same."""

    error_class: ErrorClass
    status: int
    code: int | None


class Refusals:
    """The answers of an endpoint since its last success. `kind` is the refusal that suspended it, if one did."""

    def __init__(self) -> None:
        self.kind: Refusal | None = None
        self.since = 0.0
        self._run = RUN
        self._answers: deque[tuple[Refusal, float, int]] = deque()

    def succeeded(self) -> None:
        """Note that a message was accepted."""
        self._answers.clear()

    def observe(self, began: float, refusal: Refusal, message: int) -> Suspension:
        """Note any other answer, to a request for `message` that began at `began`; return what the last ones mean.

        `since` is then when the first of them began. One message that is answered 403 again and
        again says nothing about the others.
        """
        answers = self._answers
        answers.append((refusal, began, message))
        if len(answers) > self._run:
            answers.popleft()
        if refusal.error_class is ErrorClass.CREDENTIALS and self._refuses_credentials():
            return self._found(Suspension.CREDENTIALS, refusal)
        kinds = Counter(kind for kind, _, _ in answers)
        kind, times = kinds.most_common(1)[0]
        if len(answers) < self._run or times < NEARLY_ALL * self._run or kind.error_class not in _REFUSALS:
            return Suspension.NONE
        address = kind.error_class is ErrorClass.REFUSED and kind.status in _WRONG_ADDRESS
        return self._found(Suspension.NOT_FOUND if address else Suspension.REFUSES_ALL, kind)

    def _refuses_credentials(self) -> bool:
        refused = [(kind, message) for kind, _, message in self._answers if kind.error_class is ErrorClass.CREDENTIALS]
        forbidden = {message for kind, message in refused if kind.status == _FORBIDDEN}
        return len(forbidden) + sum(kind.status != _FORBIDDEN for kind, _ in refused) >= CREDENTIALS_RUN

    def _found(self, suspension: Suspension, kind: Refusal) -> Suspension:
        self.kind = kind
        self.since = min(began for _, began, _ in self._answers)
        return suspension

    def persists(self, suspension: Suspension, refusal: Refusal) -> bool:
        """Return whether an answer to a probe, other than a success, says that the endpoint is still as it was."""
        if refusal.error_class not in _REFUSALS:
            return True
        return suspension is not Suspension.CREDENTIALS and self.is_excused(refusal)

    def is_excused(self, refusal: Refusal) -> bool:
        """Return whether the endpoint is suspended for this refusal; what suspended another replica is not known."""
        return refusal.error_class in _REFUSALS and self.kind in (None, refusal)

    def healed(self, suspension: Suspension) -> None:
        """Note that the endpoint is suspended no more."""
        if suspension in (Suspension.NOT_FOUND, Suspension.REFUSES_ALL):
            self._run = min(2 * self._run, LONGEST_RUN)
        self.kind = None
        self._answers.clear()
