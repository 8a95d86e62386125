"""The page of a training run: one self-contained HTML file. `page` writes it, each task's module says what is on it."""
