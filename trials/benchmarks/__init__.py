"""Figures of one part of the project each, as ratios to a bound or a peer in the same run where there is one."""
