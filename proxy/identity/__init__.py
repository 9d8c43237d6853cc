"""Users, their keys, and the proofs of identity. No module here speaks SSH."""
