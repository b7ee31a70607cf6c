"""Putting the rooms of a validator, and the validators of a network, together."""
