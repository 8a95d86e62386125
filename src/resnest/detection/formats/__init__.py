"""Files of annotation tools: what each tool writes is read by its module, or refused by name."""
