"""Training on what the pipeline made: samples, updates, the loop, checkpoints, and Ray Train around it."""
