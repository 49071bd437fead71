"""Functions compile with and without a folder for their machine code."""

from __future__ import annotations

from typing import Any

from fsnn_lava.machine_code import compiled


def test_functions_compile_where_no_folder_takes_the_cache() -> None:
    """Numba keeps no cache for code without a file, as in an installation where nothing can be written."""
    scope: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x\n", scope)
    assert compiled(scope["double"])(21) == 42
