"""Training: an explicit loop on Lightning Fabric for every task, and its run directory."""
