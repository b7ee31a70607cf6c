"""A validator whose rooms live in processes of their own: the `split` profile."""
