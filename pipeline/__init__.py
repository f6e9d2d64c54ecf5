"""The frame: recipes, stage declarations, the commit protocol, storage, execution. It knows no stage."""
