"""What the clients of one home validator offer next, and when they offer a refused one again.

The clients of one validator know nothing of another's: while one validator refuses all that its
clients offer, and they offer it again and again, the others' clients offer as much as before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

OFFER_AGAIN_SECONDS: Final = 0.1
SENDER_OFFERS_MAX: Final = 8
"""Of one sender, offered and not taken yet: so the rate holds while answers take half a second."""
LATER_MAX: Final = 16_384
"""Transactions read ahead of what their senders may offer."""


class Offer(NamedTuple):
    """One transaction on its way."""

    number: int
    id: bytes
    wire: bytes


class Clients:
    """The senders of one home validator; each offers its transactions by rising nonce.

    What is refused is due again after a tenth of a second, and comes before what is new.  A sender
    offers its next few nonces together, and others once those are taken: what is taken behind a gap
    cannot be executed.
    """

    def __init__(
        self,
        fresh: Iterator[Offer],
        sender_of: Callable[[Offer], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fresh`: all that they will ever offer, each sender's by rising nonce."""
        self._fresh = fresh
        self._sender_of = sender_of
        self._clock = clock
        self._again: deque[tuple[float, Offer]] = deque()
        # Senders with offers that are not taken yet and how many, what they offer after those, and
        # which of them may go on.
        self._blocked: dict[int, int] = {}
        self._later: dict[int, deque[Offer]] = {}
        self._later_count = 0
        self._freed: deque[int] = deque()
        self.exhausted = False
        """Whether more was wanted of them than they have."""

    @property
    def refused_count(self) -> int:
        """How many wait to be offered again."""
        return len(self._again)

    def due(self, count: int) -> list[Offer]:
        """About `count`: what was refused a while ago, and what senders may go on with."""
        offers = self.due_again(count)
        while len(offers) < count:
            if self._freed:
                offers += self._go_on(self._freed.popleft())
            elif self._later_count > LATER_MAX:
                break
            elif (item := next(self._fresh, None)) is None:
                # Else somebody has some left, and may not offer it yet.
                self.exhausted |= not self._later_count
                break
            elif (sender := self._sender_of(item)) in self._later or (
                self._blocked.get(sender, 0) >= SENDER_OFFERS_MAX
            ):
                self._later.setdefault(sender, deque()).append(item)
                self._later_count += 1
            else:
                offers.append(item)
                self._blocked[sender] = self._blocked.get(sender, 0) + 1
        return offers

    def due_again(self, count: int) -> list[Offer]:
        """At most `count` of those refused a while ago; their senders stay blocked."""
        now, offers = self._clock(), list[Offer]()
        while self._again and self._again[0][0] <= now and len(offers) < count:
            offers.append(self._again.popleft()[1])
        return offers

    def unsent(self, offers: list[Offer]) -> None:
        """These were due and could not be sent: they are the first that are due again."""
        self._again.extendleft((0.0, item) for item in reversed(offers))

    def refused(self, item: Offer) -> None:
        """It is offered again; its sender goes on when all that it has offered is taken."""
        self._later.setdefault(self._sender_of(item), deque())
        self._again.append((self._clock() + OFFER_AGAIN_SECONDS, item))

    def taken(self, item: Offer) -> None:
        """A validator has it."""
        sender = self._sender_of(item)
        left = self._blocked.get(sender, 0) - 1
        if left > 0:
            self._blocked[sender] = left
            return
        self._blocked.pop(sender, None)
        if sender in self._later:
            self._freed.append(sender)

    def _go_on(self, sender: int) -> list[Offer]:
        later = self._later[sender]
        run = min(SENDER_OFFERS_MAX, len(later))
        self._later_count -= run
        self._blocked[sender] = run
        offers = [later.popleft() for _ in range(run)]
        if not later:
            del self._later[sender]
        return offers
