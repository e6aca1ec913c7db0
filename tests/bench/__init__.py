"""The benches: figures side by side in one run, as ratios. See `python -m tests.bench --help`."""
