"""Self-supervised training of a backbone on the fields or cells of a store."""
