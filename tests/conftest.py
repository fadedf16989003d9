"""Hypothesis profiles, chosen by TINYVAE_HYPOTHESIS_PROFILE or by --hypothesis-profile (which wins).

ci       the same examples on every run, so that a failure is the change's and not the draw's (the default)
dev      new random examples on every run
nightly  the same, many more of them
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded: the tests run side by side, one per core

from hypothesis import settings

settings.register_profile("ci", settings.get_profile("ci"), max_examples=100)  # derandomized, no deadline
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile("nightly", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("TINYVAE_HYPOTHESIS_PROFILE", "ci"))
