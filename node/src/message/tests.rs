//! Properties of the scanner and the composer together, with serde_json as the judge.
