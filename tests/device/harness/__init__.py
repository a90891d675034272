"""Runs compiled kernels and models on a machine with a GPU and checks them. See ../README.md."""
