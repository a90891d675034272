//! Graph to graph: canonicalisation, routing passes, legalisation.
