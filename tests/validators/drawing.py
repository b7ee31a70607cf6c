"""Draws DAGs from text, a line a round.

    R1: A->* B->* C->* D->*
    R2: A->* B->-D C->[A1,C1,D1] D'->*

`*` stands for the first block of every author in the round before (round 0: the genesis blocks),
`-XY` for all of these but X's and Y's.  A list names blocks of any lower round, by author and
round.  A quote makes another block of the same slot: `D'` beside `D`, named `D2'` in lists.
Letters are validators in order; a missing one made no block.  Drawings need not be valid blocks.
"""

from __future__ import annotations

import re

from qnet_actors.validators.dag import Dag
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import BlockRef, DagBlock, genesis_refs
from tests.validators.support import START_MS, make_block

_BLOCK = re.compile(r"([A-Z])('*)->(\*|-[A-Z]+|\[[^\]]*\])")
_NAME = re.compile(r"([A-Z])(\d+)('*)")


class Drawing:
    """The blocks of a drawing by name ("A1", "D2'"), in the order of the text."""

    def __init__(self, committee: Committee, text: str) -> None:
        self.committee = committee
        self.blocks: dict[str, DagBlock] = {}
        self._refs: dict[str, BlockRef] = {}
        for author, ref in enumerate(genesis_refs(committee.seed, len(committee))):
            self._refs[f"{chr(65 + author)}0"] = ref
        for line in filter(None, map(str.strip, text.splitlines())):
            head, _, body = line.partition(":")
            assert re.fullmatch(r"R\d+", head), line
            for letter, quotes, spec in _BLOCK.findall(body):
                self._draw(int(head[1:]), letter, quotes, spec)
            left = _BLOCK.sub("", body).strip()
            assert not left, f"not understood: {left}"

    def dag(self) -> Dag:
        """All blocks, admitted in the order of the text."""
        dag = Dag(self.committee)
        for block in self.blocks.values():
            dag.add(block)
        return dag

    def _draw(self, round_: int, letter: str, quotes: str, spec: str) -> None:
        if spec.startswith("["):
            names = [name for name in spec[1:-1].split(",") if name]
            assert all(_NAME.fullmatch(name) for name in names), spec
        else:
            left_out = spec[1:] if spec.startswith("-") else ""
            authors = (chr(65 + author) for author in range(len(self.committee)))
            names = [f"{a}{round_ - 1}" for a in authors if a not in left_out]
            names = [name for name in names if name in self._refs]
        block = make_block(
            round_,
            ord(letter) - 65,
            [self._refs[name] for name in names],
            timestamp_ms=START_MS + 100 * round_ + len(quotes),
        )
        name = f"{letter}{round_}{quotes}"
        self.blocks[name] = block
        self._refs[name] = block.ref
