"""What all tests share: the real data, what this machine can serve, how hypothesis draws, one temporary folder."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fsnn_lava.datasets import DATA_VARIABLE

# The same examples on every machine, and no verdict that depends on how busy it is.
settings.register_profile("fsnn", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fsnn")


def _has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "lava": (lambda: _has("lava.magma"), 'needs lava-nc: pip install -e ".[lava]" on Python 3.10'),
    "gpu": (_has_gpu, "needs a CUDA device"),
    "loihi2": (lambda: _has("lava.utils.loihi2_profiler_api"), "needs lava-loihi and a Loihi 2 board"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=sorted(NEEDS),
        metavar="MARKER",
        help="run tests of this marker even where their needs are not met, so that they fail instead of being skipped",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, (is_met, reason) in NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and marker not in config.getoption("--require") and not is_met():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real datasets; a test of one that is not there skips itself."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"set {DATA_VARIABLE} to the folder of the datasets to run the tests on real data")
    return Path(folder).expanduser()


@pytest.fixture
def _threads() -> Iterator[None]:
    """Leaves torch's number of threads as it was."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


TEMPORARY = pytest.StashKey[Path]()
SHARED = "shared"
"""Below it: what tests of all workers use, such as trained networks (see `trained.shared_folder`)."""
KEPT_ELSEWHERE = {"PYTEST_DEBUG_TEMPROOT": "", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}
"""Folders that outlive a session on purpose: pytest's own, and what torch.compile has compiled."""


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a temporary folder; workers and the programs that tests start inherit it."""
    if hasattr(config, "workerinput"):
        return
    for variable, below in KEPT_ELSEWHERE.items():
        os.environ.setdefault(variable, str(Path(tempfile.gettempdir()) / below))
    folder = Path(tempfile.mkdtemp(prefix="fsnn-tests-"))
    (folder / SHARED).mkdir()
    config.stash[TEMPORARY] = folder
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # ask the environment again


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if tests left anything in the temporary folder; then remove it."""
    folder = session.config.stash.get(TEMPORARY, None)
    if folder is None:
        return
    left = sorted(entry.name for entry in folder.iterdir() if entry.name != SHARED)
    shutil.rmtree(folder, ignore_errors=True)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"left in the temporary folder: {', '.join(left)}", red=True)
