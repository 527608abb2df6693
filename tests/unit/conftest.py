"""Settings of the property tests: the same examples on every run, nothing kept between runs."""

from __future__ import annotations

import tempfile

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

# Hypothesis begins to write when tests are collected, before there is any tmp_path.
_STORAGE = tempfile.TemporaryDirectory(prefix="hypothesis-")
set_hypothesis_home_dir(_STORAGE.name)

settings.register_profile(
    "modelpack",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    # Files of an example are written over those of the one before.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("modelpack")
