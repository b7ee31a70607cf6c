"""Every refusal has its code, the cheapest check speaks first, and order survives the jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.crypto import Signer
from qnet_actors.rooms import Room, StatusChanged, Submit, SubmitResult
from qnet_actors.wire.batches import decode_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.limits import GAS_PRICE_MAX, TRANSACTION_SIZE_BYTES_MAX, U64_MAX
from qnet_actors.wire.messages import Batches, PublicKey
from qnet_actors.wire.schemes import Scheme
from qnet_actors.wire.transactions import (
    Action,
    MultiTransfer,
    Payment,
    Stake,
    Unstake,
    Witness,
    register_validator,
)
from tests.ledger.rig import PROVIDER
from tests.ledger.test_registry import report, validator_key
from tests.mempool.world import (
    BALANCE,
    GAS,
    GENESIS,
    SCHEME,
    ZERO,
    Accounts,
    Client,
    Driver,
    id_of,
    make_driver,
    settings,
)

ALICE, BOB = Client(1), Client(2)


def answers(driver: Driver) -> list[SubmitResult]:
    return driver.sent.events(Room.GATEWAY, SubmitResult)


def statuses(driver: Driver) -> list[tuple[str, tuple[bytes, ...]]]:
    return [(e.status, e.ids) for e in driver.sent.events(Room.GATEWAY, StatusChanged)]


def with_witness(**fields) -> bytes:
    transaction = ALICE.transaction(0)
    terms: dict[str, Any] = {
        "scheme": SCHEME,
        "signature": transaction.witness.signature,
        "public_key": transaction.witness.public_key,
    }
    return encode(type(transaction)(transaction.body, Witness(**(terms | fields))))


OVERFLOW = MultiTransfer((Payment(ZERO, U64_MAX), Payment(ZERO, 1)))


def with_action(tag: int) -> bytes:
    (*terms, _), witness = msgspec.msgpack.decode(ALICE.send(0))
    return msgspec.msgpack.encode(((*terms, (tag, bytes(32))), witness))


REFUSED: dict[str, tuple[Code, Callable[[], bytes]]] = {
    "too large": (Code.TOO_LARGE, lambda: bytes(TRANSACTION_SIZE_BYTES_MAX + 1)),
    "action of another version": (Code.ACTION_DISABLED, lambda: with_action(4)),
    "no action": (Code.UNKNOWN_ACTION, lambda: with_action(99)),
    "empty": (Code.MALFORMED, lambda: b""),
    "cut": (Code.MALFORMED, lambda: ALICE.send(0)[:-1]),
    "trailing": (Code.MALFORMED, lambda: ALICE.send(0) + b"\0"),
    "long integer": (Code.NON_CANONICAL, lambda: ALICE.send(0).replace(b"\x9a\x01", b"\x9a\xcc\1")),
    "version": (Code.UNSUPPORTED_VERSION, lambda: ALICE.send(0, version=2)),
    "chain": (Code.WRONG_CHAIN, lambda: ALICE.send(0, chain_id=ZERO)),
    "expired": (Code.EXPIRED, lambda: ALICE.send(0, valid_until=5)),
    "gas too low": (Code.GAS_LIMIT_TOO_LOW, lambda: ALICE.send(0, gas_limit=999)),
    "gas price": (Code.GAS_PRICE_OUT_OF_RANGE, lambda: ALICE.send(0, price=0)),
    "amounts": (Code.AMOUNT_OVERFLOW, lambda: ALICE.send(0, action=OVERFLOW)),
    "scheme": (Code.UNKNOWN_SCHEME, lambda: with_witness(scheme=99)),
    "other scheme": (Code.SCHEME_REFUSED, lambda: with_witness(scheme=Scheme.ED25519)),
    "short signature": (Code.MALFORMED, lambda: with_witness(signature=bytes(31))),
    "short key": (Code.MALFORMED, lambda: with_witness(public_key=bytes(31))),
    "another key": (Code.UNKNOWN_KEY, lambda: with_witness(public_key=BOB.public_key)),
    "nonce too low": (Code.NONCE_TOO_LOW, lambda: BOB.send(2)),
    "nonce too far": (Code.NONCE_TOO_FAR, lambda: BOB.send(3 + 65)),
    "key not current": (Code.KEY_NOT_CURRENT, lambda: ALICE.rotated(9).send(0)),
    "funds": (Code.INSUFFICIENT_FUNDS, lambda: ALICE.send(0, amount=BALANCE - 10 * GAS + 1)),
    "unknown key": (Code.UNKNOWN_KEY, lambda: Client(4).send(0, with_key=False)),
    "bad signature": (Code.BAD_SIGNATURE, lambda: ALICE.send(0, signature=bytes(32))),
}


@pytest.fixture
def accounts() -> Accounts:
    made = Accounts()
    made.set(BOB.address, nonce=3)
    return made


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, accounts: Accounts) -> None:
    code, make = REFUSED[case]
    driver = make_driver(accounts=accounts, height=5)
    data = make()
    good = ALICE.send(0)
    assert driver.submit(data, good) == [code, Code.SUCCESS]
    ((_, id_, detail), _) = answers(driver)[-1].results
    assert detail == "" or len(detail) < 300
    formless = (
        *(Code.TOO_LARGE, Code.NON_CANONICAL, Code.UNSUPPORTED_VERSION, Code.WRONG_CHAIN),
        *(Code.ACTION_DISABLED, Code.UNKNOWN_ACTION),
    )
    if code not in formless and case not in ("empty", "cut", "trailing"):
        assert id_ == id_of(data)
    assert driver.shard.metrics.refused[code] == 1
    assert driver.shard.metrics.admitted == 1


@pytest.mark.parametrize(
    "data",
    [
        ALICE.send(3 + 64),
        ALICE.send(3, valid_until=6),
        ALICE.send(3, price=GAS_PRICE_MAX, amount=0),
        ALICE.send(3, amount=2**62 - 10 * GAS),
    ],
)
def test_bounds_are_inclusive(data: bytes) -> None:
    accounts = Accounts()
    accounts.set(ALICE.address, nonce=3, balance=2**62)
    assert make_driver(accounts=accounts, height=5).submit(data) == [Code.SUCCESS]


@pytest.mark.parametrize(
    "action",
    [
        Stake(1),
        Unstake(0),
        report(3),
    ],
)
def test_actions_on_validators_are_for_networks_whose_epochs_end(action: Action) -> None:
    data = ALICE.send(0, action=action, gas_limit=60_000)
    driver = make_driver()
    assert driver.submit(data) == [Code.ACTION_DISABLED]
    assert "epoch_commits_min" in answers(driver)[-1].results[0][2]
    parameters = msgspec.structs.replace(GENESIS.parameters, epoch_commits_min=1)
    genesis = msgspec.structs.replace(GENESIS, parameters=parameters)
    data = ALICE.send(0, action=action, gas_limit=60_000, chain_id=genesis.chain_id())
    assert make_driver(genesis=genesis).submit(data) == [Code.SUCCESS]


def changing_genesis() -> Genesis:
    parameters = msgspec.structs.replace(GENESIS.parameters, epoch_commits_min=1)
    return msgspec.structs.replace(GENESIS, parameters=parameters)


def registration(account: bytes, **changes: Any) -> bytes:
    """Alice registers a validator key that signed for `account`."""
    chain_id = changing_genesis().chain_id()
    signer = Signer(validator_key(7), PROVIDER)
    action = register_validator(signer, chain_id, account, 1)
    action = msgspec.structs.replace(action, **changes)
    return ALICE.send(0, action=action, gas_limit=60_000, chain_id=chain_id)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (registration(ALICE.address), Code.SUCCESS),
        (registration(BOB.address), Code.BAD_SIGNATURE),
        (registration(ALICE.address, proof=bytes(32)), Code.BAD_SIGNATURE),
        (registration(ALICE.address, public_key=BOB.public_key), Code.BAD_SIGNATURE),
        (registration(ALICE.address, proof=bytes(31)), Code.MALFORMED),
        (registration(ALICE.address, scheme=99), Code.UNKNOWN_SCHEME),
        (
            registration(ALICE.address, scheme=Scheme.ED25519, proof=bytes(64)),
            Code.SCHEME_REFUSED,
        ),
    ],
)
def test_a_validator_key_signs_for_who_registers_it(data: bytes, code: Code) -> None:
    driver = make_driver(genesis=changing_genesis())
    # Among others, each of which gets a verdict of its own.
    chain_id = changing_genesis().chain_id()
    others = [BOB.send(n, chain_id=chain_id) for n in range(2)]
    assert driver.submit(others[0], data, others[1]) == [Code.SUCCESS, code, Code.SUCCESS]
    detail = answers(driver)[-1].results[1][2]
    assert ("validator key" in detail) == (code in (Code.BAD_SIGNATURE, Code.SCHEME_REFUSED))


@pytest.mark.parametrize("action", [None, MultiTransfer((Payment(ZERO, 1),))])
def test_what_is_never_included_takes_no_room(action: Action | None) -> None:
    accounts = Accounts()
    accounts.set(ALICE.address, nonce=U64_MAX)
    accounts.set(BOB.address, nonce=U64_MAX - 1)
    fields: dict[str, Any] = {} if action is None else {"action": action}
    driver = make_driver(accounts=accounts)
    submitted = [
        ALICE.send(U64_MAX, **fields),
        BOB.send(U64_MAX - 1, **fields),
        BOB.send(U64_MAX, **fields),
    ]
    assert driver.submit(*submitted) == [Code.NONCE_TOO_FAR, Code.SUCCESS, Code.NONCE_TOO_FAR]
    assert driver.shard.metrics.admitted == 1


def test_the_cheapest_check_speaks_first() -> None:
    driver = make_driver(height=5)
    wrong = {"signature": bytes(32), "amount": BALANCE, "gas_limit": 1, "nonce": 99}
    chain, expired = {"chain_id": ZERO}, {"valid_until": 5}

    def send(**fields) -> bytes:
        return ALICE.send(fields.pop("nonce"), **fields)

    assert driver.submit(
        send(**wrong, **chain, **expired),
        send(**wrong, **expired),
        send(**wrong),
        send(**(wrong | {"gas_limit": GAS})),
        send(**(wrong | {"gas_limit": GAS, "nonce": 0})),
        send(nonce=0, signature=bytes(32)),
    ) == [
        Code.WRONG_CHAIN,
        Code.EXPIRED,
        Code.GAS_LIMIT_TOO_LOW,
        Code.NONCE_TOO_FAR,
        Code.INSUFFICIENT_FUNDS,
        Code.BAD_SIGNATURE,
    ]
    # Only the last one was worth a signature check.
    assert driver.shard.metrics.signatures_verified == 1


def test_duplicates_before_and_after_batching() -> None:
    driver = make_driver()
    data = ALICE.send(0)
    assert driver.submit(data, data) == [Code.SUCCESS, Code.DUPLICATE]
    assert driver.submit(data) == [Code.DUPLICATE]
    driver.advance(100)
    assert driver.shard.metrics.batches_sealed == 1
    assert driver.submit(data) == [Code.DUPLICATE]


def test_what_is_batched_is_not_replaced() -> None:
    driver = make_driver()
    driver.submit(ALICE.send(0))
    driver.advance(100)
    assert driver.submit(ALICE.send(0, price=100)) == [Code.NONCE_TOO_LOW]


def test_replacement_and_its_status() -> None:
    driver = make_driver()
    first, better = ALICE.send(0, price=100), ALICE.send(0, price=110)
    assert driver.submit(first) == [Code.SUCCESS]
    assert driver.submit(ALICE.send(0, price=109)) == [Code.REPLACEMENT_UNDERPRICED]
    assert driver.submit(better) == [Code.SUCCESS]
    assert statuses(driver) == [("replaced", (id_of(first),))]
    assert driver.shard.metrics.transactions_dropped["replaced"] == 1


def test_a_full_pool_gives_way_to_who_pays_more() -> None:
    driver = make_driver(settings=settings(pool_transactions_max=2))
    low, high = ALICE.send(0, price=5), BOB.send(0, price=9)
    assert driver.submit(low, high) == [Code.SUCCESS, Code.SUCCESS]
    carol = Client(3)
    assert driver.submit(carol.send(0, price=5)) == [Code.POOL_FULL]
    assert driver.submit(carol.send(0, price=6)) == [Code.SUCCESS]
    assert statuses(driver) == [("evicted", (id_of(low),))]


def test_a_sender_has_a_limit() -> None:
    driver = make_driver(settings=settings(sender_transactions_max=2))
    codes = driver.submit(ALICE.send(0), ALICE.send(1), ALICE.send(2), BOB.send(0))
    assert codes == [0, 0, Code.SENDER_LIMIT, 0]


def test_pending_costs_add_up_within_a_submission() -> None:
    accounts = Accounts()
    accounts.set(ALICE.address, balance=2 * (10 * GAS + 1))
    codes = make_driver(accounts=accounts).submit(*[ALICE.send(n) for n in range(3)])
    assert codes == [0, 0, Code.INSUFFICIENT_FUNDS]


def test_a_known_key_need_not_be_sent_again() -> None:
    driver = make_driver()
    assert driver.submit(ALICE.send(0)) == [Code.SUCCESS]
    assert driver.submit(ALICE.send(1, with_key=False)) == [Code.SUCCESS]


def test_the_key_of_a_bad_signature_is_not_kept() -> None:
    driver = make_driver()
    assert driver.submit(ALICE.send(0, signature=bytes(32))) == [Code.BAD_SIGNATURE]
    assert driver.submit(ALICE.send(0, with_key=False)) == [Code.UNKNOWN_KEY]


def test_a_key_may_come_with_another_transaction_of_the_submission() -> None:
    driver = make_driver()
    bare, forged = ALICE.send(0, with_key=False), ALICE.send(1, signature=bytes(32))
    assert driver.submit(bare, forged) == [Code.SUCCESS, Code.BAD_SIGNATURE]
    # Though what brought it was refused, the batch has it, and so has the store.
    driver.advance(100)
    (message,) = driver.messages(Batches)
    assert decode_batch(message.batches[0]).public_keys == [ALICE.public_key]
    assert driver.submit(ALICE.send(1, with_key=False)) == [Code.SUCCESS]


def test_new_keys_are_written_with_the_batch() -> None:
    store = make_driver().store
    driver = make_driver(store=store)
    driver.submit(ALICE.send(0))
    driver.advance(100)
    store.crash()
    assert store.load().keys == (PublicKey(SCHEME, ALICE.public_key),)


def test_rotate_then_send_in_one_submission() -> None:
    driver, new = make_driver(), ALICE.rotated(50)
    codes = driver.submit(ALICE.send(0), ALICE.rotate(1, new), new.send(2), ALICE.send(3))
    assert codes == [0, 0, 0, Code.KEY_NOT_CURRENT]
    assert driver.submit(ALICE.send(3), new.send(3)) == [Code.KEY_NOT_CURRENT, 0]


def test_the_new_key_is_taken_while_its_rotation_is_being_verified() -> None:
    driver, new = make_driver(), ALICE.rotated(50)
    driver.hold_runs = True
    driver.give(Submit(1, (ALICE.rotate(0, new),)))
    driver.give(Submit(2, (new.send(1),)))
    driver.run()
    driver.run()
    assert [a.results[0][0] for a in answers(driver)] == [Code.SUCCESS, Code.SUCCESS]


def test_a_forged_rotation_lets_nobody_in() -> None:
    driver, other = make_driver(), ALICE.rotated(50)
    driver.hold_runs = True
    driver.give(Submit(1, (ALICE.rotate(0, other, signature=bytes(32)),)))
    driver.give(Submit(2, (other.send(1), ALICE.send(0))))
    driver.run()
    driver.run()
    assert [a.results[0][0] for a in answers(driver)] == [
        Code.BAD_SIGNATURE,
        Code.KEY_NOT_CURRENT,
    ]
    assert driver.shard.metrics.admitted == 1


def test_a_run_of_nonces_longer_than_the_window() -> None:
    driver = make_driver()
    codes = driver.submit(*[ALICE.send(n) for n in range(200)])
    assert codes == [Code.SUCCESS] * 200
    assert driver.submit(ALICE.send(200 + 65), ALICE.send(200 + 64)) == [Code.NONCE_TOO_FAR, 0]


def test_submissions_are_released_in_order_whichever_job_ends_first() -> None:
    driver = make_driver()
    driver.hold_runs = True
    driver.give(Submit(1, tuple(ALICE.send(n) for n in range(100))))
    driver.give(Submit(2, tuple(ALICE.send(n) for n in range(100, 200))))
    driver.give(Submit(3, (ALICE.send(200),)))
    driver.run(1)
    driver.run(1)
    assert answers(driver) == []
    driver.run(0)
    assert [answer.request for answer in answers(driver)] == [1, 2, 3]
    assert all(code == 0 for answer in answers(driver) for code, _, _ in answer.results)
    assert driver.shard.metrics.pool_transactions == 201


def test_a_forged_copy_does_not_keep_the_true_one_out() -> None:
    driver = make_driver()
    driver.hold_runs = True
    driver.give(Submit(1, (ALICE.send(0, signature=bytes(32)),)))
    driver.give(Submit(2, (ALICE.send(0),)))
    driver.run()
    driver.run()
    assert [a.results[0][0] for a in answers(driver)] == [Code.BAD_SIGNATURE, Code.SUCCESS]


def test_state_that_moved_during_the_job_is_looked_at_again(accounts: Accounts) -> None:
    driver = make_driver(accounts=accounts)
    driver.hold_runs = True
    driver.give(Submit(1, (ALICE.send(0), BOB.send(3))))
    accounts.set(BOB.address, nonce=4)
    driver.run()
    assert [code for code, _, _ in answers(driver)[0].results] == [0, Code.NONCE_TOO_LOW]


def test_one_read_of_the_state_before_and_one_after_the_job(accounts: Accounts) -> None:
    driver = make_driver(accounts=accounts)
    driver.submit(*[Client(i).send(0) for i in range(1, 20)])
    assert accounts.reads == 2


def test_what_is_under_verification_is_bounded() -> None:
    driver = make_driver(settings=settings(verifying_size_bytes_max=1_000))
    driver.hold_runs = True
    # Alone, even a submission over the bound is taken.
    driver.give(Submit(1, tuple(ALICE.send(n) for n in range(20))))
    driver.give(Submit(2, (BOB.send(0), BOB.send(1))))
    assert answers(driver)[0].results == ((Code.BUSY, b"", ""),) * 2
    driver.run()
    driver.hold_runs = False
    assert driver.submit(BOB.send(0)) == [Code.SUCCESS]


def test_a_submission_has_a_limit() -> None:
    driver = make_driver(settings=settings(submit_transactions_max=2))
    assert driver.submit(*[b""] * 3) == [Code.TOO_MANY_TRANSACTIONS] * 3
    assert driver.submit(b"", b"") == [Code.MALFORMED] * 2


def test_an_empty_submission_is_answered() -> None:
    driver = make_driver()
    assert driver.submit() == []


def test_a_store_past_its_watermark_refuses() -> None:
    driver = make_driver()
    driver.store.full = True
    assert driver.submit(ALICE.send(0)) == [Code.BUSY]


@given(st.binary(max_size=400), st.integers(0, 200), st.integers(0, 255))
def test_no_bytes_raise_anything(noise: bytes, at: int, value: int) -> None:
    data = bytearray(ALICE.send(0))
    data[at % len(data)] = value
    driver = make_driver()
    codes = driver.submit(noise, bytes(data), BOB.send(0))
    assert codes[2] == Code.SUCCESS
    assert codes[0] >= 100
    assert codes[1] in (0, *(code for code in Code if code >= 100))
