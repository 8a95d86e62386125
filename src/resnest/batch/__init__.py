"""Batch jobs: predictions for millions of pictures in one file, written in parts, so that a job that ends goes on."""
