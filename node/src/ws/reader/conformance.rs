//! Tests of the frame reader.
