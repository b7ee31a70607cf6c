"""Faults on a running network, and whether what it had acknowledged is still there."""
