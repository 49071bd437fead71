"""Functions compile with and without a folder for their machine code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import pytest

from fsnn_lava.files import CACHE_VARIABLE
from fsnn_lava.kernels import compile as machine_code
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
    assert machine_code._cache_folder(before).name in str(found.stats.cache_path)
    other = _folder_of(tmp_path / "one", {"a.py": "# kernels.compile 1", "b.py": "nothing"})
    assert other == _folder_of(tmp_path / "two", {"a.py": "# kernels.compile 1", "b.py": "else"})
    assert other != _folder_of(tmp_path / "three", {"a.py": "# kernels.compile 2", "b.py": "nothing"})
    assert other != _folder_of(tmp_path / "four", {"c.py": "# kernels.compile 1", "b.py": "nothing"})


def test_what_is_kept_lies_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    machine_code._cache_folder.cache_clear()
    found = compiled(_four_times)
    machine_code._cache_folder.cache_clear()
    assert found(2) == 8
    assert Path(found.stats.cache_path).is_relative_to(tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.nbc"))


def _folder_of(package: Path, sources: dict[str, str]) -> str:
    """Name of the folder for a package of these files."""
    package.mkdir()
    for name, text in sources.items():
        (package / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_code, "__file__", str(package / "kernels" / "compile.py"))
        machine_code._cache_folder.cache_clear()
        found = machine_code._cache_folder("").name
    machine_code._cache_folder.cache_clear()
    return found


def _three_times(x: int) -> int:
    return 3 * x


def _four_times(x: int) -> int:
    return 4 * x
