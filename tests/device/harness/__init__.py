"""Runs compiled kernels and models on a machine with a GPU and judges them. See ../README.md."""
