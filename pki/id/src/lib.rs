//! Trust domains, SPIFFE IDs and fingerprints: pure values everyone shares.
