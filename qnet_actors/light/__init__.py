"""What someone checks who trusts a genesis and nothing else: certificates, headers, proofs.

`LightClient` holds to a genesis what a gateway answers.  Nothing here loads Ray, DuckDB, numba or
numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.light.checkpoints import (
        HEADERS_MAX,
        CertificateVerifier,
        check_certificate,
        check_headers,
    )
    from qnet_actors.light.client import FinalTransaction, LightClient, Signatures
    from qnet_actors.light.evidence import (
        PROVED_ACCOUNT_CODEC,
        PROVED_TRANSACTION_CODEC,
        ProvedAccount,
        ProvedTransaction,
        prove_transaction,
    )
    from qnet_actors.light.hand_off import HAND_OFF_CODEC, HandOff, check_hand_off
    from qnet_actors.light.merkle import MerkleProof, merkle_proof, verify_leaf
    from qnet_actors.light.proofs import (
        ACCOUNT_PROOF_CODEC,
        Account,
        AccountProof,
        OtherLeaf,
        bit,
        key_hash,
        leaf_hash,
        node_hash,
        pack_proof,
        proof_siblings,
        value_hash,
        verify_account,
        verify_key,
    )
else:
    __getattr__ = lazy(
        __name__,
        {
            "checkpoints": (
                "HEADERS_MAX",
                "CertificateVerifier",
                "check_certificate",
                "check_headers",
            ),
            "client": ("FinalTransaction", "LightClient", "Signatures"),
            "evidence": (
                "PROVED_ACCOUNT_CODEC",
                "PROVED_TRANSACTION_CODEC",
                "ProvedAccount",
                "ProvedTransaction",
                "prove_transaction",
            ),
            "hand_off": ("HAND_OFF_CODEC", "HandOff", "check_hand_off"),
            "merkle": ("MerkleProof", "merkle_proof", "verify_leaf"),
            "proofs": (
                "ACCOUNT_PROOF_CODEC",
                "Account",
                "AccountProof",
                "OtherLeaf",
                "bit",
                "key_hash",
                "leaf_hash",
                "node_hash",
                "pack_proof",
                "proof_siblings",
                "value_hash",
                "verify_account",
                "verify_key",
            ),
        },
    )

__all__ = [
    "ACCOUNT_PROOF_CODEC",
    "HAND_OFF_CODEC",
    "HEADERS_MAX",
    "PROVED_ACCOUNT_CODEC",
    "PROVED_TRANSACTION_CODEC",
    "Account",
    "AccountProof",
    "CertificateVerifier",
    "FinalTransaction",
    "HandOff",
    "LightClient",
    "MerkleProof",
    "OtherLeaf",
    "ProvedAccount",
    "ProvedTransaction",
    "Signatures",
    "bit",
    "check_certificate",
    "check_hand_off",
    "check_headers",
    "key_hash",
    "leaf_hash",
    "merkle_proof",
    "node_hash",
    "pack_proof",
    "proof_siblings",
    "prove_transaction",
    "value_hash",
    "verify_account",
    "verify_key",
    "verify_leaf",
]
