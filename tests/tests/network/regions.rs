//! Two regions with an ocean between them.
