"""Where the user's cache is."""

from pathlib import Path

import pytest

from fsnn_lava.files import CACHE_VARIABLE, user_cache


def test_folder_is_the_named_one_or_below_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv(CACHE_VARIABLE, "~/mine")
    assert user_cache() == Path("/home/somebody/mine")
    monkeypatch.delenv(CACHE_VARIABLE)
    assert user_cache() == Path("/xdg/fsnn-lava")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache() == Path("/home/somebody/.cache/fsnn-lava")
