//! The simulator: whole clusters of cores in one thread, over networks, disks and clocks that fail.

pub mod disk;
