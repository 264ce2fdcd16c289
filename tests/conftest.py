"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data outside the repository; where it is absent the test is skipped (CI has it)."""
    data = REPOSITORY.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"{data} is not here")
    return data


def pytest_configure() -> None:
    """One thread a process: tests run side by side on two cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
