"""The stages: each maps a pure function of one block over the store. None imports another."""
