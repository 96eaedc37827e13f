"""Self-supervised training (DINO) of a backbone on the fields or cells of a store."""
