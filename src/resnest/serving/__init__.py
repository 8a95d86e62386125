"""The server: models behind HTTP, with dynamic batches, limits that hold, and a page (docs/serve.md)."""
