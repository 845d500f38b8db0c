"""速度，以比值计 / Speed, as ratios. All of it in one table: `python -m benchmarks`."""
