//! The graph IR of skipc: ops, types, text form, verifier, interpreter.
