"""Fixtures that every test may ask for, and where tests may be skipped: never in CI."""

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run quick tests first: a slip shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def skips_are_failures() -> bool:
    """Tell whether every tool and every file must be there: in CI, or where HOPLINE_REQUIRE_ALL is set."""
    return bool(os.environ.get("HOPLINE_REQUIRE_ALL")) or os.environ.get("CI") == "true"


def fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that says why the test wanted to be skipped; expected failures stay."""
    if report.skipped and not hasattr(report, "wasxfail") and skips_are_failures():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid}: nothing may be skipped here (HOPLINE_REQUIRE_ALL or CI): {reason}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Judge the skip of one test."""
    report = yield
    fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Judge the skip of a whole file."""
    report = yield
    fail_skipped(report)
    return report
