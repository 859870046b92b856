//! What a relay and its controller share: snapshots, cuts, declarations, the agreement gate, status.
