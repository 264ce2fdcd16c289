"""A copy of the repository for tests that run Snakemake."""

from pathlib import Path

import pytest
import workflow_runs


@pytest.fixture(scope="module")
def tree(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the repository without results, free to be written in."""
    return workflow_runs.copy_repository(repository, tmp_path_factory.mktemp("copy") / "hopline")
