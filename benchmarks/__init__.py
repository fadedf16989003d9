"""Measurements. Nothing here is a test: no test is timed, and no number in the docs comes from elsewhere."""
