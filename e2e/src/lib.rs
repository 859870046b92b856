//! What the end-to-end tests share: the lab and its clusters, probe pods, waiting, and the harness.
//!
//! A black box: this crate knows the API types and Kubernetes, and nothing of operator, planner or relay. Clusters come
//! from `e2e/cluster/lab`; no test starts an engine or a cluster by itself. A control plane without nodes is started for the
//! tests of one file ([`plane`]).

pub mod cluster;
pub mod harness;
pub mod installed;
pub mod lab;
pub mod machine;
pub mod organization;
pub mod pair;
pub mod people;
pub mod plane;
pub mod probe;
pub mod stream;
pub mod wait;

pub use cluster::{Cluster, Namespace};
pub use harness::{Outcome, Test, World};
pub use lab::Lab;
pub use pair::Pair;
