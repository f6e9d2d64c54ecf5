"""A run of the real size with trivial stages, on a store that fails and nodes that are lost."""
