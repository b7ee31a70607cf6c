"""The links of a validator under the names of its epoch: places in the committee, then the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from qnet_actors.links import Links, PeerKey, Roster
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.messages import Message, PeerStatus

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a validator stands among the others, for as long as an epoch lasts."""

    committee: Committee
    own: int | None
    """Its place in the committee; None: it is not of it, and only follows."""
    keys: tuple[PeerKey, ...]
    """Of all who may link: the committee, the one before, and who is registered for the next."""


class Neighbours:
    """What the rooms of one epoch after the other see of the links; a `driver.Peers`.

    Who is not of the committee is named by its number in the roster, counted from the committee's
    end, so that a name stays what it is for as long as the epoch lasts.
    """

    def __init__(self, roster: Roster, links: Links, observers: tuple[PeerKey, ...] = ()) -> None:
        """`observers` may link in every epoch, to read."""
        self._roster: Final = roster
        self._links: Final = links
        self._observers: Final = observers
        self._readers: frozenset[int] = frozenset()
        """The numbers of observers that are nothing else."""
        self._epoch = 0
        self._numbers: tuple[int, ...] = ()
        """Of the committee, in its order."""
        self._names: dict[int, int] = {}
        self._others: tuple[int, ...] = ()
        self._addresses: dict[bytes, Address] = {}
        self._epochs: dict[int, int] = {}
        """The epoch that a peer said last that it is in."""

    def begin(self, standing: Standing) -> None:
        """The names are those of this committee from now on."""
        committee = standing.committee
        self._set_keys(standing.keys)
        numbers = [self._roster.number_of(committee.key_id(i)) for i in range(len(committee))]
        self._numbers = tuple(number for number in numbers if number is not None)
        if len(self._numbers) != len(committee):
            raise ValueError("a member of the committee may not link")
        self._epoch = committee.epoch
        self._names = {number: name for name, number in enumerate(self._numbers)}
        self._others = tuple(n for n in self._numbers if n != self._roster.own)
        self._forget()

    def find_at(self, addresses: Mapping[bytes, Address]) -> None:
        """Where validators listen, by key id; those that may link are dialled."""
        self._addresses = dict(addresses)
        self._dial()

    def only_reads(self, number: int) -> bool:
        """Whether a peer is an observer, and not a validator as well."""
        return number in self._readers

    def name(self, number: int) -> int:
        """What a peer is called in this epoch."""
        name = self._names.get(number)
        return len(self._numbers) + number if name is None else name

    @property
    def up(self) -> tuple[int, ...]:
        """The names of those to whom a link stands."""
        return tuple(self.name(number) for number in self._links.up)

    def moved_on(self, number: int, message: Message) -> bool:
        """Whether a peer says with this, for the first time, that it is in this epoch too.

        What was sent to it before was of no use to it, as if its link had come up just now.
        """
        if not isinstance(message, PeerStatus) or message.epoch <= self._epochs.get(number, -1):
            return False
        self._epochs[number] = message.epoch
        return message.epoch == self._epoch

    def send(self, peer: int, message: Message) -> bool:
        """See `driver.Peers`."""
        count = len(self._numbers)
        number = self._numbers[peer] if peer < count else peer - count
        return self._links.send(number, message)

    def broadcast(self, message: Message) -> int:
        """To the committee: nobody else has a use for what is not meant for him."""
        return self._links.broadcast(message, self._others)

    def _set_keys(self, keys: Iterable[PeerKey]) -> None:
        known = {key.id: key for key in keys}
        readers = {key.id: key for key in self._observers if key.id not in known}
        self._links.set_keys([*known.values(), *readers.values()])
        numbers = (self._roster.number_of(name) for name in readers)
        self._readers = frozenset(n for n in numbers if n is not None and n != self._roster.own)

    def _forget(self) -> None:
        """Of who may not link any more nothing is kept."""
        self._epochs = {n: epoch for n, epoch in self._epochs.items() if n in self._roster}
        self._dial()

    def _dial(self) -> None:
        numbers = ((self._roster.number_of(name), at) for name, at in self._addresses.items())
        self._links.set_peers({number: at for number, at in numbers if number is not None})
