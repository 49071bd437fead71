"""Functions compile with and without a folder for the cache, which lies in the user's and is cleaned up."""

import os
import time
from pathlib import Path
from typing import Any

import numba
import pytest

from fsnn_lava.files import CACHE_VARIABLE
from fsnn_lava.kernels import compile as module
from fsnn_lava.kernels.compile import compiled, compiled_fused


def test_functions_compile_where_no_folder_takes_the_cache() -> None:
    """Numba keeps no cache for code without a file, as in an installation where nothing can be written."""
    scope: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x\n", scope)
    assert compiled(scope["double"])(21) == 42


@pytest.mark.parametrize("compiler", [compiled, compiled_fused])
def test_what_is_kept_goes_into_a_folder_of_its_sources(compiler: Any, tmp_path: Path) -> None:
    """A change in any compiling file begins a new folder: Numba would not notice one in another file."""
    before = numba.config.CACHE_DIR
    found = compiler(_three_times)
    assert found(14) == 42
    assert before == numba.config.CACHE_DIR
    folder = module._cache_folder(before)
    assert folder.name in str(found.stats.cache_path)
    other = _folder_of(tmp_path / "one", {"a.py": "# kernels.compile 1", "b.py": "nothing"})
    assert other == _folder_of(tmp_path / "two", {"a.py": "# kernels.compile 1", "b.py": "else"})
    assert other != _folder_of(tmp_path / "three", {"a.py": "# kernels.compile 2", "b.py": "nothing"})
    assert other != _folder_of(tmp_path / "four", {"c.py": "# kernels.compile 1", "b.py": "nothing"})


def test_the_cache_lies_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    module._cache_folder.cache_clear()
    found = compiled(_four_times)
    module._cache_folder.cache_clear()
    assert found(2) == 8
    assert Path(found.stats.cache_path).is_relative_to(tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.nbc"))


def test_nothing_is_written_beside_the_source_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    found = compiled(_four_times)
    assert found(3) == 12
    assert found.stats.cache_path is None


def test_only_folders_old_and_not_among_the_newest_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ages = {"a": 0, "b": 6, "c": 20, "d": 30, "e": 6, "f": 40}
    for name, days in ages.items():
        (tmp_path / f"machine-code-{name}").mkdir()
        os.utime(tmp_path / f"machine-code-{name}", times=(time.time() - days * 86400,) * 2)
    (tmp_path / "images").mkdir()
    os.utime(tmp_path / "images", times=(0, 0))
    module._remove_unused(tmp_path)  # the newest are a, b, e and c
    assert sorted(folder.name[-1] for folder in tmp_path.glob("machine-code-*")) == ["a", "b", "c", "e"]
    assert (tmp_path / "images").is_dir()
    monkeypatch.setattr(module, "_NEWEST", 1)
    module._remove_unused(tmp_path)  # b and e may be in use
    assert sorted(folder.name[-1] for folder in tmp_path.glob("machine-code-*")) == ["a", "b", "e"]


def _folder_of(package: Path, sources: dict[str, str]) -> str:
    """Name of the folder for a package of these files."""
    package.mkdir()
    for name, text in sources.items():
        (package / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "__file__", str(package / "kernels" / "compile.py"))
        module._cache_folder.cache_clear()
        found = module._cache_folder(str(package.parent / "cache"))
    module._cache_folder.cache_clear()
    return found.name


def _three_times(x: int) -> int:
    return 3 * x


def _four_times(x: int) -> int:
    return 4 * x
