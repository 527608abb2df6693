"""Settings of the property tests: the same examples on every run, nothing kept between runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

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


@pytest.fixture(scope="session", autouse=True)
def _hypothesis_writes_below_tmp(tmp_path_factory: pytest.TempPathFactory) -> None:
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
