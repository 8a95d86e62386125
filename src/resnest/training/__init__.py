"""Training: one explicit loop on Lightning Fabric for every task, and the run directory it writes."""
