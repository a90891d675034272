//! Test tools: golden cases, random graphs, tolerances.
