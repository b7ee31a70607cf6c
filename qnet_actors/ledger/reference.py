"""The specification of execution: one transaction after another, in plain Python.

Every faster path is held to this one by tests.  It is written to be read: the steps stand in the
order in which they happen to a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from qnet_actors.ledger.actions import ValidatorActions
from qnet_actors.ledger.outcome import Outcome, Reader
from qnet_actors.ledger.registry import Registry
from qnet_actors.ledger.values import Accounts, Values
from qnet_actors.wire.blocks import Receipt
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.limits import U64_MAX
from qnet_actors.wire.schemes import Verifier
from qnet_actors.wire.transactions import (
    Action,
    Approve,
    Body,
    MultiTransfer,
    RegisterValidator,
    ReportEquivocation,
    RotateKey,
    Stake,
    Transfer,
    Unstake,
    amount_total,
    intrinsic_gas,
    transaction_id,
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the registry of validators needs to know of the block besides its transactions."""

    genesis: Genesis
    verifier: Verifier
    commit: Commit | None = None
    """The commit that the block ends with; None where it is not the last part of one."""


def execute_reference(
    height: int,
    batches: Sequence[tuple[bytes, Sequence[Body]]],
    reader: Reader,
    terms: Terms | None = None,
) -> Outcome:
    """Executes the bodies of (reward address, bodies) batches as the block at `height`.

    The bodies keep the static rules of `wire.transactions.check_body`, and their signatures were
    checked against their key ids when their batch was.  Without `terms` no action may concern the
    validators, and no epoch ends.  Raises `QnetError(INTERNAL)` where fees
    overflow a balance, which a supply below 2^62 rules out.
    """
    accounts = Accounts(reader)
    validator_actions = None
    if terms is not None:
        validator_actions = ValidatorActions(Registry(accounts, terms.genesis), terms.verifier)
    fees: dict[bytes, int] = {}
    ids: list[bytes] = []
    bodies: list[bytes] = []
    receipts: list[bytes] = []
    excluded: list[bytes] = []
    failed_count = gas_used = 0
    for reward, batch in batches:
        fees.setdefault(reward, 0)
        for body in batch:
            encoded = encode(body)
            id_ = transaction_id(encoded)
            gas = intrinsic_gas(len(body.access), body.action)
            fee = gas * body.gas_price
            if not is_included(body, accounts[body.sender], height, fee):
                excluded.append(id_)
                continue
            sender = accounts[body.sender]
            accounts[body.sender] = Values(sender.nonce + 1, sender.balance - fee, body.key_id)
            fees[reward] += fee
            status = apply_action(accounts, validator_actions, body.sender, body.action)
            ids.append(id_)
            bodies.append(encoded)
            receipts.append(encode(Receipt(id_, status, gas, b"", ())))
            failed_count += status != Code.SUCCESS
            gas_used += gas
    for reward, fee in fees.items():
        account = accounts[reward]
        if account.balance + fee > U64_MAX:
            raise QnetError(Code.INTERNAL, "fees overflow a balance: the supply is not conserved")
        accounts[reward] = replace(account, balance=account.balance + fee)
    if validator_actions is not None and terms is not None and terms.commit is not None:
        validator_actions.registry.end_block(terms.commit)
    return Outcome(ids, bodies, receipts, excluded, failed_count, gas_used, accounts.write_set())


def is_included(body: Body, sender: Values, height: int, fee: int) -> bool:
    """Whether a transaction is authorised, in turn, unexpired and able to pay its intrinsic gas."""
    key_id = body.sender if sender.key_id == ZERO_DIGEST else sender.key_id
    return (
        body.key_id == key_id
        and body.nonce == sender.nonce
        and sender.nonce < U64_MAX
        and (body.valid_until == 0 or height <= body.valid_until)
        and sender.balance >= fee
    )


def apply_action(
    accounts: Accounts,
    validator_actions: ValidatorActions | None,
    sender: bytes,
    action: Action,
) -> Code:
    """Does what an included transaction asks for, wholly or not at all; returns its status."""
    match action:
        case Transfer(payee=payee, amount=amount):
            return _pay(accounts, sender, [(payee, amount)])
        case MultiTransfer(payments=payments):
            if amount_total(action) > accounts[sender].balance:
                return Code.INSUFFICIENT_BALANCE
            return _pay(accounts, sender, [(p.payee, p.amount) for p in payments])
        case RotateKey(key_id=key_id):
            accounts[sender] = replace(accounts[sender], key_id=key_id)
            return Code.SUCCESS
        case RegisterValidator() | Stake() | Unstake() | Approve() | ReportEquivocation():
            if validator_actions is None:
                raise QnetError(Code.INTERNAL, "an action on the validators without terms")
            return validator_actions.apply(sender, action)
        case _:
            assert_never(action)


def _pay(accounts: Accounts, sender: bytes, payments: Sequence[tuple[bytes, int]]) -> Code:
    """Moves amounts one after the other; what was moved is put back where one cannot be."""
    undo: list[tuple[bytes, Values]] = []
    for payee, amount in payments:
        status = Code.SUCCESS
        payer = accounts[sender]
        if payer.balance < amount:
            status = Code.INSUFFICIENT_BALANCE
        else:
            undo.append((sender, payer))
            accounts[sender] = replace(payer, balance=payer.balance - amount)
            receiver = accounts[payee]
            if receiver.balance + amount > U64_MAX:
                status = Code.BALANCE_OVERFLOW
            else:
                undo.append((payee, receiver))
                accounts[payee] = replace(receiver, balance=receiver.balance + amount)
        if status != Code.SUCCESS:
            for address, values in reversed(undo):
                accounts[address] = values
            return status
    return Code.SUCCESS
