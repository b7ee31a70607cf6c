"""What travels: types, canonical encoding, limits, hashing, addresses, codes.

Formats are described for writers of other clients in docs/reference/wire.md.
"""
