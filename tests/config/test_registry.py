"""Things by name: what is registered is found, what is not is refused with the names that are."""

import importlib.metadata

import pytest

from fsnn_lava.config.registry import Registry
from fsnn_lava.errors import ConfigError, UnsupportedError


def a_registry() -> Registry[object]:
    registry: Registry[object] = Registry("shape", group="fsnn_lava.test_shapes", error=UnsupportedError)
    registry.register("round", dict, help="has no corner")
    registry.register("square", "collections:OrderedDict", help="has four")
    return registry


def test_names_keep_their_order_and_help() -> None:
    registry = a_registry()
    assert list(registry) == ["round", "square"]
    assert registry.help() == "round: has no corner; square: has four"


def test_gives_the_thing_or_imports_it() -> None:
    import collections

    assert a_registry().get("round") is dict
    assert a_registry().get("square") is collections.OrderedDict


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        UnsupportedError, match=r'no shape "squre" \(did you mean "square"\?\); there are: round, square'
    ):
        a_registry().get("squre")


def test_a_name_is_taken_once_and_free_again_when_removed() -> None:
    registry = a_registry()
    with pytest.raises(ConfigError, match=r'shape "round": the name is taken'):
        registry.register("round", list, help="again")
    registry.remove("round")
    registry.register("round", list, help="again")
    assert registry.get("round") is list


def test_entry_points_of_other_distributions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("oval", "collections:Counter", "fsnn_lava.test_shapes")
    asked = []

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        asked.append(group)
        return [point]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry = a_registry()
    assert list(registry) == ["round", "square", "oval"]
    assert registry.get("oval").__name__ == "Counter"  # type: ignore[attr-defined]
    assert asked == ["fsnn_lava.test_shapes"]
