//! Tests of the Serf layer.
