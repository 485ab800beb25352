"""What was read is kept, summed up and read back: `store` writes, all else reads or tidies."""
