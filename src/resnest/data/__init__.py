"""Data sets, samples and batches; independent of networks."""
