//! The data plane: carries TCP streams between organizations over mutual TLS. Knows nothing of Kubernetes.

pub mod wire;
