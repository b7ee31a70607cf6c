"""The rules that `qnet validator approve` sends: the present ones with what is to change."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from qnet_actors.client import Rules
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Parameters
from qnet_actors.wire.rules import EpochRules, check_change


def changed_rules(present: Rules, changes: Sequence[str], version: int | None) -> EpochRules:
    """`changes` are "name=value"; `version` None: the present one.

    Raises `QnetError`: INVALID_PARAMETER for a name that there is not, or a value that is no
    number; PARAMETERS_REFUSED, VERSION_REFUSED like the validators would.
    """
    values = msgspec.structs.asdict(present.parameters)
    before = EpochRules(present.protocol_version, Parameters(**values))
    for change in changes:
        name, _, value = change.partition("=")
        if name not in values:
            known = ", ".join(values)
            raise QnetError(Code.INVALID_PARAMETER, f"{name!r} is no parameter; there are {known}")
        values[name] = _number(name, value)
    try:
        # Within the ranges of the wire format, or nobody could read it.
        parameters = msgspec.msgpack.decode(encode(Parameters(**values)), type=Parameters)
    except (msgspec.ValidationError, QnetError) as error:
        detail = f"{' '.join(changes)}: {error}"
        raise QnetError(Code.INVALID_PARAMETER, detail) from None
    rules = EpochRules(present.protocol_version if version is None else version, parameters)
    check_change(before, rules)
    return rules


def spelled(rules: EpochRules) -> str:
    """All that an approval of these rules binds, for its owner to read."""
    values = msgspec.structs.asdict(rules.parameters)
    return " ".join(
        f"{name}={value}" for name, value in {"version": rules.version, **values}.items()
    )


def _number(name: str, value: str) -> int | bool:
    if value in ("true", "false"):
        return value == "true"
    try:
        return int(value)
    except ValueError:
        raise QnetError(Code.INVALID_PARAMETER, f"{name} is to be a number: {value!r}") from None
