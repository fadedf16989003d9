"""Measurements: `python -m benchmarks --help`. No test is timed, and every number in the docs comes from here."""
