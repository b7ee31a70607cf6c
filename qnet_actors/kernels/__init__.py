"""Compiled kernels and their cache.

A kernel module is a file of this package with functions under `cache.kernel` and a `warm()` that
calls (or only defines) each of them.  Nothing here loads numba until a kernel module is imported.
"""
