//! Reads files (to come).
