"""QNet actors: a post-quantum ledger whose parts are Ray actors."""

__version__ = "0.1.0"
