"""The audit: what was done is appended to a chain of hashes and can't be changed."""
