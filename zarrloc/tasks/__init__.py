"""What a worker does to one block of each stage: pure functions, run by the engine."""
