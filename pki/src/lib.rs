//! Roots, issuing, pins, root transitions and the peer verifier. No Kubernetes, no sockets.
