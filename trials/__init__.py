"""The frame under load and under fire: the benchmarks, and the rehearsal of a run of the real size."""
