"""The routes for those who check: proofs, and the genesis that they are checked against."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from qnet_actors.gateway.openapi import answers
from qnet_actors.gateway.queries import (
    AccountProofAnswer,
    AccountProofQuery,
    GenesisAnswer,
    GenesisQuery,
    HandOffAnswer,
    HandOffQuery,
    TransactionProofAnswer,
    TransactionProofQuery,
)
from qnet_actors.gateway.routes import (
    API,
    AddressText,
    TransactionId,
    json_response,
    parse_digest,
    parse_height,
)
from qnet_actors.gateway.schema import AccountProofView, TransactionProofView
from qnet_actors.gateway.service import Gateway
from qnet_actors.gateway.submission import MSGPACK_TYPE
from qnet_actors.light import Account
from qnet_actors.wire.address import decode_address
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.hashing import ZERO_DIGEST

_NOBODY: Final = Account(0, 0, ZERO_DIGEST)
_MSGPACK: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Done",
        "content": {MSGPACK_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def create_proof_router(gateway: Gateway) -> APIRouter:
    """The routes of `gateway` that hand out what clients check themselves."""
    router = APIRouter(prefix=API)

    @router.get(
        "/accounts/{address}/proof",
        summary="An account at the newest certified checkpoint, with its proof",
        responses=answers({200: (AccountProofView,)}, Code.BAD_ADDRESS, Code.NOT_FOUND),
    )
    async def account(
        address: AddressText,
        min_height: Annotated[
            str, Query(description="Refuse with `not_found` while a lower height is certified.")
        ] = "0",
    ) -> Response:
        """Also proves that an account does not exist.  The checkpoint is about a second old."""
        network = await gateway.network()
        raw = decode_address(address, development=network.development)
        query = AccountProofQuery(raw, parse_height(min_height, "min_height"))
        proved = (await gateway.ask(query, AccountProofAnswer)).proved
        held = proved.account or _NOBODY
        return json_response(
            AccountProofView(
                address=network.views.address(raw),
                height=str(proved.certificate.checkpoint.height),
                exists=proved.account is not None,
                balance=str(held.balance),
                nonce=str(held.nonce),
                proof=encode(proved),
                key_id=None if held.key_id == ZERO_DIGEST else held.key_id.hex(),
            )
        )

    @router.get(
        "/tx/{id}/proof",
        summary="A final transaction, its receipt and the proof of both",
        responses=answers(
            {200: (TransactionProofView,)}, Code.INVALID_PARAMETER, Code.NOT_FOUND, Code.PRUNED
        ),
    )
    async def transaction(
        id: TransactionId,  # noqa: A002 - the name in the path
    ) -> Response:
        """`not_found` until the transaction is final."""
        query = TransactionProofQuery(parse_digest(id))
        proved = (await gateway.ask(query, TransactionProofAnswer)).proved
        return json_response(
            TransactionProofView(
                id=id,
                height=str(proved.headers[0].height),
                index=proved.transaction.index,
                proof=encode(proved),
            )
        )

    @router.get(
        "/genesis",
        summary="The genesis, whose digest is the chain id",
        responses=answers({}, Code.TOO_LARGE) | _MSGPACK,
    )
    async def genesis() -> Response:
        """Canonical MessagePack: docs/reference/wire.md."""
        answer = await gateway.ask(GenesisQuery(), GenesisAnswer)
        return Response(answer.genesis, media_type=MSGPACK_TYPE)

    @router.get(
        "/epochs/{epoch}/hand-off",
        summary="How an epoch's committee handed over to the next one, for those who check",
        responses=answers({}, Code.INVALID_PARAMETER, Code.NOT_FOUND) | _MSGPACK,
    )
    async def hand_off(
        epoch: Annotated[str, Path(description="The epoch that ended, from 0.")],
    ) -> Response:
        """Canonical MessagePack of a `HandOff`: docs/reference/proofs.md.

        `not_found` while the epoch has not ended.
        """
        query = HandOffQuery(parse_height(epoch, "epoch"))
        answer = await gateway.ask(query, HandOffAnswer)
        return Response(encode(answer.hand_off), media_type=MSGPACK_TYPE)

    return router
