"""Workloads, open-loop load, and measurement."""
