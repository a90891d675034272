//! File format, kernel ABI and target names: all that compiler and runtime share.
