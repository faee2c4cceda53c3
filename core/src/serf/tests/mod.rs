//! Tests of the Serf layer: the recorded status table, and whole lives of small clusters.

mod coordinates;
mod lives;
mod status;
