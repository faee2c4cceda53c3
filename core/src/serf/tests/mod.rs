//! Tests of the Serf layer: the recorded status table, whole lives of small clusters, and
//! what they tell and ask each other.

mod conflicts;
mod coordinates;
mod events;
mod keys;
mod lives;
mod queries;
mod status;
