"""The faults: what each does to a running network, and how it is undone.

Processes are signalled by their ids only.  Files are changed while their process is stopped by
SIGSTOP and before it is killed, so that nothing but the fault writes to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qnet_actors.crypto import development_key
from qnet_actors.network.development import VALIDATOR
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.launch import Network
from qnet_actors.network.settings import HostSettings, NetworkSettings
from qnet_actors.wire.codes import Code, QnetError

STOPPED_SECONDS: Final = 4.0
STOPPED_LONG_SECONDS: Final = 60.0
FILE_SIZE_BYTES_MAX: Final = 256 * 1024
"""Of any file of the process whose disk is full; the logs of Ray stay below."""
STOP_TIMEOUT_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Site:
    """Where faults strike."""

    network: Network
    processes: dict[str, int]
    """By name, as they were just before the fault; rooms that live apart as validator-0/ledger."""
    random: random.Random

    def victim(self) -> int:
        """A validator chosen by the seed."""
        return self.random.randrange(self.network.settings.validators)

    def room(self, kind: str) -> str:
        """The name of one of the rooms of that kind, of any validator."""
        rooms = (name for name in self.processes if name.partition("/")[2].startswith(kind))
        return self.random.choice(sorted(name for name in rooms if "/" in name))

    def of_validator(self, index: int) -> list[int]:
        """All its processes."""
        name = f"validator-{index}"
        rooms = [pid for key, pid in self.processes.items() if key.startswith(f"{name}/")]
        return [*rooms, self.processes[name]]

    def signal_validator(self, index: int, number: signal.Signals) -> None:
        for pid in self.of_validator(index):
            # With the first of them killed, the others may end by themselves.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def directory(self, index: int) -> Path:
        return self.network.settings.directory / f"validator-{index}"


async def _nothing() -> None:
    """Nothing is to be undone."""


@dataclass(frozen=True, slots=True)
class Injury:
    """What was done."""

    validators: tuple[int, ...] = ()
    """That must come back."""
    what: str = ""
    heal: Callable[[], Awaitable[None]] = _nothing
    """Called once all clients are served again, or a while after the fault where some are not."""


Fault = Callable[[Site], Awaitable[Injury]]


async def kill_validator(site: Site) -> Injury:
    index = site.victim()
    site.signal_validator(index, signal.SIGKILL)
    return Injury((index,), f"validator {index}")


async def kill_ledger(site: Site) -> Injury:
    """One process of a split validator; the rest of the validator has to end by itself."""
    return _kill_room(site, "ledger")


async def kill_shard(site: Site) -> Injury:
    """The same, where it is a mempool shard."""
    return _kill_room(site, "mempool")


async def kill_partition(site: Site) -> Injury:
    """The same, where it is a state partition."""
    return _kill_room(site, "partition")


async def kill_executor(site: Site) -> Injury:
    """The same, where it is an executor."""
    return _kill_room(site, "executor")


def _kill_room(site: Site, kind: str) -> Injury:
    name = site.room(kind)
    os.kill(site.processes[name], signal.SIGKILL)
    return Injury((_index(name),), name)


async def stop_room(site: Site) -> Injury:
    """One process of a split validator stands still; the others go on without its answers."""
    return _stop_room(site, STOPPED_SECONDS)


async def stop_room_long(site: Site) -> Injury:
    """The same, for about as long as the rest of the validator waits before it starts again."""
    return _stop_room(site, STOPPED_LONG_SECONDS)


def _stop_room(site: Site, seconds: float) -> Injury:
    name = site.room("")
    process = site.processes[name]
    os.kill(process, signal.SIGSTOP)
    begun = time.monotonic()

    async def heal() -> None:
        await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)

    return Injury((_index(name),), name, heal)


def _index(room: str) -> int:
    return int(room.partition("/")[0].removeprefix("validator-"))


async def kill_gateway(site: Site) -> Injury:
    number = site.random.randrange(site.network.settings.gateways)
    os.kill(site.processes[f"gateway-{number}"], signal.SIGKILL)
    return Injury((), f"gateway {number}")


async def kill_network(site: Site) -> Injury:
    """All validators at one time; Ray starts them again on what their disks hold."""
    everyone = tuple(range(site.network.settings.validators))
    for index in everyone:
        site.signal_validator(index, signal.SIGKILL)
    return Injury(everyone, "all validators")


async def stop_validator(site: Site) -> Injury:
    """Neither dead nor alive: its connections stand, and nothing comes over them."""
    return _stop(site, STOPPED_SECONDS)


async def stop_validator_long(site: Site) -> Injury:
    """The same, for longer than links, gateways and other validators' patience last."""
    return _stop(site, STOPPED_LONG_SECONDS)


def _stop(site: Site, seconds: float) -> Injury:
    index = site.victim()
    site.signal_validator(index, signal.SIGSTOP)
    begun = time.monotonic()

    async def heal() -> None:
        await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
        site.signal_validator(index, signal.SIGCONT)

    return Injury((index,), f"validator {index}", heal)


async def cut_journal(site: Site) -> Injury:
    """Bytes are missing at the end of the consensus journal: what was signed last is forgotten."""
    return _cut(site, "journal/journal-*.seg")


async def cut_batches(site: Site) -> Injury:
    """Bytes are missing at the end of the batch store."""
    return _cut(site, "batches/segment-*.log")


async def cut_block_log(site: Site) -> Injury:
    """Bytes are missing at the end of the block log."""
    return _cut(site, "ledger/blocks-*.duckdb.wal")


async def damage_block_log(site: Site) -> Injury:
    """A byte in the midst of the block log has changed.

    The validator may find out at its start, and then has to refuse it; its block log is set aside
    and it takes the blocks from the others.
    """
    index = site.victim()
    site.signal_validator(index, signal.SIGSTOP)
    path = _newest(site.directory(index), "ledger/blocks-*.duckdb.wal")
    size = path.stat().st_size
    position = site.random.randrange(size // 4, size)
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 0xFF]))
    site.signal_validator(index, signal.SIGKILL)

    async def heal() -> None:
        reason = await stopped(site.network, index)
        if reason is None:
            return
        if Code.DATA_CORRUPT.label not in reason:
            raise QnetError(Code.INTERNAL, f"a damaged block log ended in: {reason}")
        directory = site.directory(index)
        (directory / "ledger").rename(directory / f"ledger-damaged-{time.time_ns()}")
        await _restart(site.network, index)

    return Injury((index,), f"validator {index}, byte {position} of {size}", heal)


async def second_copy(site: Site) -> Injury:
    """Another process opens the data directory of a running validator; it must be refused."""
    index = site.victim()
    settings = HostSettings(index=index, directory=site.directory(index))
    copy = ValidatorHost(site.network.genesis, development_key(VALIDATOR, index), settings)
    try:
        await copy.start()
    except QnetError as error:
        if error.code != Code.DATA_DIRECTORY_LOCKED:
            raise
    else:
        await copy.stop()
        raise QnetError(Code.DIVERGED, f"a second validator {index} was let at its data")
    return Injury((), f"validator {index}")


async def fill_disk(site: Site) -> Injury:
    """Files cannot grow any more; the validator must stop, and come back once they can."""
    index = site.victim()
    for pid in site.of_validator(index):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_SIZE_BYTES_MAX, hard))

    async def heal() -> None:
        reason = await stopped(site.network, index)
        if reason is None or Code.DISK_FULL.label not in reason:
            raise QnetError(Code.INTERNAL, f"a full disk ended in: {reason}")
        site.signal_validator(index, signal.SIGKILL)

    return Injury((index,), f"validator {index}", heal)


FAULTS: Final[dict[str, Fault]] = {
    "kill_validator": kill_validator,
    "kill_network": kill_network,
    "stop_validator": stop_validator,
    "stop_validator_long": stop_validator_long,
    "cut_journal": cut_journal,
    "cut_block_log": cut_block_log,
    "damage_block_log": damage_block_log,
    "cut_batches": cut_batches,
    "kill_gateway": kill_gateway,
    "second_copy": second_copy,
    "fill_disk": fill_disk,
}

ROOM_FAULTS: Final[dict[str, Fault]] = {
    "kill_ledger": kill_ledger,
    "kill_shard": kill_shard,
    "kill_partition": kill_partition,
    "kill_executor": kill_executor,
    "stop_room": stop_room,
    "stop_room_long": stop_room_long,
}
"""Of a network whose validators are split, besides the others."""


def faults_of(settings: NetworkSettings) -> dict[str, Fault]:
    """The kinds of faults that a network can have."""
    if settings.profile == "packed":
        return FAULTS
    found = FAULTS | ROOM_FAULTS
    if settings.executors == 1:
        # The ledger executes by itself.
        del found["kill_executor"]
    return found


async def stopped(network: Network, index: int) -> str | None:
    """Why a validator stopped or did not start; None once it runs and is ready."""
    give_up = time.monotonic() + STOP_TIMEOUT_SECONDS
    while time.monotonic() < give_up:
        reason = await asyncio.to_thread(network.failure, index)
        if reason is not None:
            return reason
        await asyncio.sleep(POLL_SECONDS)
    return None


async def _restart(network: Network, index: int) -> None:
    processes = await asyncio.to_thread(network.process_ids)
    os.kill(processes[f"validator-{index}"], signal.SIGKILL)


def _cut(site: Site, pattern: str) -> Injury:
    index = site.victim()
    site.signal_validator(index, signal.SIGSTOP)
    path = _newest(site.directory(index), pattern)
    size = path.stat().st_size
    count = min(size, site.random.randint(1, 20_000))
    os.truncate(path, size - count)
    site.signal_validator(index, signal.SIGKILL)
    return Injury((index,), f"validator {index}, {count} of {size} bytes")


def _newest(directory: Path, pattern: str) -> Path:
    paths = sorted(directory.glob(pattern))
    if not paths:
        raise QnetError(Code.INTERNAL, f"no file {pattern} in {directory.name}")
    return paths[-1]
