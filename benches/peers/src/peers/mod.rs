//! The peers, one file for each family.

pub mod fresh;
pub mod keyed;
pub mod queues;
