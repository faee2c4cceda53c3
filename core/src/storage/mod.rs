//! The bytes of everything on disk, and what damaged bytes mean.

pub mod op;
