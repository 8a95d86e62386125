"""Data health: pictures and labels worth a look, a page to go through them, and the list of decisions."""
