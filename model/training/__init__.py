"""Training on what the pipeline made.

A stage    recipe, launch (→ check, then stage, on one process or by ray_train), start: what it begins with
Samples    samples, sources (corpora and five pairs; pictures, patches), order, updates: batches by number, data
The loop   loop, optimizer, sharding and world: several processes
Its state  checkpoints: files, whole or not at all; persistence: what is in them
Meters     grounding, of held_out samples with exchange-d neighbours and pictures; captions
Shown      watch: which figures; view: terminal, TensorBoard, JSON; gates, captions_page
"""
