"""速度与成绩，以比值计 / Speed and results, as ratios. All of the speed in one table: `python -m benchmarks`."""
