"""The committee changes while the network runs: whole nodes, real links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from qnet_actors.client import build, sign
from qnet_actors.crypto import KeyPair, Signer, development_key, provider
from qnet_actors.gateway.queries import (
    AccountProofAnswer,
    AccountProofQuery,
    HandOffAnswer,
    HandOffQuery,
    StatusAnswer,
    StatusQuery,
    ValidatorsAnswer,
    ValidatorsQuery,
)
from qnet_actors.kernels.cache import warm
from qnet_actors.light import HAND_OFF_CODEC, LightClient
from qnet_actors.network.answers import NO_MEMBER
from qnet_actors.network.development import ACCOUNT, STAKE, VALIDATOR, development_genesis
from qnet_actors.network.host import ValidatorHost
from qnet_actors.network.settings import HostSettings
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.rules import EpochRules, first_rules
from qnet_actors.wire.transactions import (
    Action,
    Approve,
    Unstake,
    register_validator,
)

pytestmark = [pytest.mark.network, pytest.mark.timeout(120)]
FIRST = 4


def signed(genesis: Genesis, owner: Signer, nonce: int, action: Action) -> bytes:
    chain_id, sender = genesis.chain_id(), owner.key_id
    body = build(chain_id=chain_id, sender=sender, signer=owner, nonce=nonce, action=action)
    return sign(body, owner).data


async def until(host: ValidatorHost, holds: Callable[[], bool]) -> None:
    """Looks after each event of `host`; the test's own timeout ends it."""
    after = 0
    while not holds():
        after, _ = await host.poll(after, 1_000)


async def committee(host: ValidatorHost) -> tuple[int, list[bytes]]:
    """(epoch, key ids) as a validator shows it."""
    answer = await host.query(ValidatorsQuery())
    assert isinstance(answer, ValidatorsAnswer)
    return answer.epoch, [validator.key_id for validator in answer.validators]


async def submitted(host: ValidatorHost, transaction: bytes) -> None:
    """Offers it after each event until `host` takes it, as a client of one that still joins."""
    after = 0
    while True:
        try:
            ((code, _, detail),) = await host.submit([transaction])
        except QnetError as error:
            if error.code != Code.NOT_READY:
                raise
            after, _ = await host.poll(after, 1_000)
        else:
            assert code == Code.SUCCESS, detail
            return


@pytest.fixture
def keys() -> list[KeyPair]:
    warm()
    library = provider("auto")
    return [development_key(VALIDATOR, index, provider=library) for index in range(FIRST + 1)]


async def test_a_validator_registers_joins_votes_and_leaves(tmp_path: Path, keys: list[KeyPair]):
    library = provider("auto")
    owner = Signer(development_key(ACCOUNT, 0, provider=library), library)
    parameters = Parameters(round_idle_ms=60, gc_depth=8, commit_lag=8, epoch_commits_min=20)
    genesis = development_genesis(keys[:FIRST], [owner.key_id], parameters=parameters)
    hosts = [
        ValidatorHost(
            genesis, key, HostSettings(index=index, directory=tmp_path / f"validator-{index}")
        )
        for index, key in enumerate(keys)
    ]
    first, joiner = hosts[0], hosts[FIRST]
    epochs: dict[int, list[bytes]] = {}

    async def epoch_of(host: ValidatorHost, number: int) -> None:
        """Looks after each event of a validator that stays in the committee."""
        after = 0
        while (epoch := await committee(host))[0] < number:
            after, _ = await first.poll(after, 1_000)
        epochs[epoch[0]] = epoch[1]

    try:
        endpoints = [await host.start() for host in hosts]
        for host in hosts[:FIRST]:
            host.connect(endpoints[:FIRST])
        joiner.connect(endpoints)
        await first.wait_ready()
        # Nobody lets in who is not registered.
        status = await joiner.query(StatusQuery())
        assert isinstance(status, StatusAnswer)
        assert (status.ready, status.index, status.height) == (False, NO_MEMBER, 0)
        with pytest.raises(QnetError, match="not of the committee"):
            await joiner.submit([b""])

        key = Signer(keys[FIRST], library)
        register = register_validator(key, genesis.chain_id(), owner.key_id, STAKE)
        await submitted(first, signed(genesis, owner, 0, register))
        for host in hosts:
            await epoch_of(host, 1)
        assert epochs[1] == [member.key_id for member in keys]
        # It takes what clients send, and votes.
        await until(joiner, lambda: len(joiner.state_roots()) >= 3)
        await submitted(joiner, signed(genesis, owner, 1, Unstake(STAKE)))
        for host in hosts:
            await epoch_of(host, 2)
        assert epochs[2] == [member.key_id for member in keys[:FIRST]]
        height = first.state_roots()[-1][0]
        await until(first, lambda: first.state_roots()[-1][0] > height + 3)
        with pytest.raises(QnetError, match="not of the committee"):
            await joiner.poll(0, 0)
        # Nor does who was let in just before the epoch ended wait for a mempool that is gone.
        with pytest.raises(QnetError, match="not of the committee"):
            await joiner._rooms.submit([b""])
        light = LightClient(genesis, library)
        for ended in range(2):
            # Who has joined meanwhile has seen no end of an epoch but those of its own time.
            for host in (first, joiner)[: ended + 1]:
                answer = await host.query(HandOffQuery(ended))
                assert isinstance(answer, HandOffAnswer)
                following = light.follow(HAND_OFF_CODEC.decode(encode(answer.hand_off)))
                assert [following.key_id(n) for n in range(len(following))] == epochs[ended + 1]
        proved = await first.query(AccountProofQuery(owner.key_id))
        assert isinstance(proved, AccountProofAnswer)
        assert proved.proved.certificate.checkpoint.epoch == light.epoch == 2
        assert light.account(owner.key_id, proved.proved)[1] == proved.proved.account is not None
        with pytest.raises(QnetError, match="how epoch 2 ended"):
            await first.query(HandOffQuery(2))
        roots = [dict(host.state_roots()) for host in hosts]
        for report in roots[1:]:
            common = report.keys() & roots[0].keys()
            assert len(common) >= 3
            assert {report[at] for at in common} == {roots[0][at] for at in common}
        assert [host.failure for host in hosts] == [None] * len(hosts)
    finally:
        for host in hosts:
            await host.stop()


async def test_other_rules_are_approved_and_hold_after_a_restart_too(
    tmp_path: Path, keys: list[KeyPair]
):
    library = provider("auto")
    owners = [Signer(key, library) for key in keys[:FIRST]]
    parameters = Parameters(round_idle_ms=60, gc_depth=8, commit_lag=8, epoch_commits_min=20)
    names = [owner.key_id for owner in owners]
    genesis = development_genesis(keys[:FIRST], names, parameters=parameters)
    slower = EpochRules(
        1, msgspec.structs.replace(parameters, round_delay_ms=70, block_interval_ms=150)
    )

    def host_of(index: int) -> ValidatorHost:
        settings = HostSettings(index=index, directory=tmp_path / f"validator-{index}")
        return ValidatorHost(genesis, keys[index], settings)

    async def rules(host: ValidatorHost) -> tuple[int, EpochRules]:
        answer = await host.query(ValidatorsQuery())
        assert isinstance(answer, ValidatorsAnswer)
        return answer.epoch, answer.rules

    hosts = [host_of(index) for index in range(FIRST)]
    first = hosts[0]
    try:
        endpoints = [await host.start() for host in hosts]
        for host in hosts:
            host.connect(endpoints)
        await first.wait_ready()
        assert await rules(first) == (0, first_rules(parameters))
        # A quorum of four is three; the last one says nothing and follows.
        for owner in owners[:3]:
            await submitted(first, signed(genesis, owner, 0, Approve(0, slower)))
        after = 0
        for host in hosts:
            while (await rules(host))[0] < 1:
                after, _ = await first.poll(after, 1_000)
            assert await rules(host) == (1, slower)
        await hosts[3].stop()
        hosts[3] = host_of(3)
        endpoints[3] = await hosts[3].start()
        for host in hosts:
            host.connect(endpoints)
        await hosts[3].wait_ready()
        assert await rules(hosts[3]) == (1, slower)
        height = hosts[3].state_roots()[-1][0] if hosts[3].state_roots() else 0
        await until(hosts[3], lambda: bool(r := hosts[3].state_roots()) and r[-1][0] > height + 3)
        assert [host.failure for host in hosts] == [None] * len(hosts)
    finally:
        for host in hosts:
            await host.stop()
