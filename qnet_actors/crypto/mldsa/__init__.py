"""ML-DSA-65 of our own: a slow reference, and a batched verifier over compiled kernels."""
