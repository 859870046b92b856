//! The pure core: verdicts, certificate decisions, relay configuration and status, without clock, client or randomness.
