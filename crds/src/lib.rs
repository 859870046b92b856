//! API types of SecureLink: the four kinds, their schema and CEL rules, conditions and well-known keys.
