"""Data sets in, batches out. Knows no network."""
