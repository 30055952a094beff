"""Settings that all tests share."""

import os

# Before NumPy loads: the figures drawn in tests need no screen, and BLAS no second thread.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from hypothesis import settings

settings.register_profile("fastdl", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("fastdl")
