"""Entry points: `python jobs/NAME.py RECIPE [section.key=value …]` on a laptop, `ray job submit` on a cluster."""
