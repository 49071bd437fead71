"""Gradient methods, solvers and surrogates by name: those registered from outside are trained with, others refused."""

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fsnn_lava.cli.train import parse_arguments
from fsnn_lava.config import METHODS, SOLVERS, SURROGATES, GradientMethod, NetworkConfig, Registry, TrainConfig
from fsnn_lava.config.settings import TrainingConfig, config_from_dict
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import ConfigError
from fsnn_lava.network import FeedbackSNN, FixedPoint, Map
from fsnn_lava.training import LAST, AdjointSettings, ImplicitRates, fit, implicit_rates, load_checkpoint
from short_training import changed

CALLS: list[str] = []
"""What was called, in order."""


def neumann(f: Map, start: Tensor, *, tolerance: float, max_steps: int, least_norm: float = 0.0) -> FixedPoint:
    """A solver: two terms of the series."""
    CALLS.append("solver")
    each = torch.full((len(start),), 0.25, dtype=torch.float64)
    return FixedPoint(f(f(start)), each, 2, each < 1, each)


def doubled(
    model: FeedbackSNN, x: Tensor, *, training: Any, time_steps: int, generator: Any, sums: Any, processes: int
) -> ImplicitRates:
    """A gradient method: IDE's, which tells of itself."""
    CALLS.append("method")
    settings = AdjointSettings(training.adjoint_solver, max_steps=training.adjoint_max_steps)
    found = implicit_rates(model, x, time_steps=time_steps, settings=settings, generator=generator)
    return replace(found, figures=lambda found, names, *, count, total: {"steps_of_mine": found.steps * count})


def triangle(z: Tensor) -> Tensor:
    CALLS.append("curve")
    return (1 - z.abs()).clamp(min=0)


def refuse_leak(network: NetworkConfig, training: TrainingConfig) -> None:
    if network.leak < 1:
        raise ConfigError("mine: IF alone")


@pytest.fixture
def registered() -> Iterator[None]:
    """One more of each kind, from outside of the package."""
    mine: list[tuple[Registry[Any], str, object]] = [
        (METHODS, "mine", GradientMethod(doubled, check=refuse_leak)),
        (SOLVERS, "neumann", neumann),
        (SURROGATES, "triangle", triangle),
    ]
    CALLS.clear()
    for registry, name, what in mine:
        registry.register(name, what, help="made by a test")
    yield
    for registry, name, _ in mine:
        registry.remove(name)


@pytest.mark.usefixtures("registered")
def test_method_and_solver_from_outside_are_trained_with(tmp_path: Path) -> None:
    config = changed(epochs=1, batch_size=600, method="mine", adjoint_solver="neumann", milestones=())
    result = fit(config, load_dataset("digits"), tmp_path)
    assert result.finished
    assert ["method", "solver"] * (len(CALLS) // 2) == CALLS
    assert CALLS
    kept = load_checkpoint(tmp_path / LAST)
    assert (kept.config.training.method, kept.config.training.adjoint_solver) == ("mine", "neumann")
    assert kept.metrics["last_epoch"]["train/steps_of_mine"] == 2
    assert "train/adjoint_steps" not in kept.metrics["last_epoch"]


@pytest.mark.usefixtures("registered")
def test_surrogate_from_outside_is_trained_with(tmp_path: Path) -> None:
    config = changed(epochs=1, batch_size=600, method="bptt", surrogate="triangle", milestones=())
    assert fit(config, load_dataset("digits"), tmp_path).finished
    assert set(CALLS) == {"curve"}


@pytest.mark.usefixtures("registered")
def test_command_line_offers_what_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--training.method", "mine", "--training.adjoint-solver", "neumann", "--training.surrogate", "triangle"]
    training = parse_arguments(argv).settings.training
    assert (training.method, training.adjoint_solver, training.surrogate) == ("mine", "neumann", "triangle")
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    for choices in ("ide,spide,bptt,mine", "fixed_point,anderson,broyden,neumann", "rectangular,arctan,triangle"):
        assert f"{{{choices}}}" in shown
    assert "mine: made by a test" in re.sub(r"\s+", " ", shown)


@pytest.mark.usefixtures("registered")
def test_what_a_method_cannot_do_is_refused_by_its_own_check() -> None:
    with pytest.raises(ConfigError, match="mine: IF alone"):
        TrainConfig(network=NetworkConfig(leak=0.5), training=TrainingConfig(method="mine"))
    assert TrainConfig(network=NetworkConfig(leak=0.5)).training.method == "ide"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("key", "kind", "names"),
    [
        ("method", "gradient method", ("ide", "spide", "bptt", "mine")),
        ("adjoint_solver", "adjoint solver", ("fixed_point", "anderson", "broyden", "neumann")),
        ("surrogate", "surrogate", ("rectangular", "arctan", "triangle")),
    ],
)
def test_unknown_name_is_refused_with_the_list(key: str, kind: str, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'no {kind} "gone"; there are: {", ".join(names)}')):
        TrainConfig(training=TrainingConfig(**{key: "gone"}))
    listed = ", ".join(map(repr, names))
    with pytest.raises(ConfigError, match=re.escape(f"key \"training.{key}\": found 'gone'; allowed: {listed}")):
        config_from_dict({"training": {key: "gone"}})


def test_checkpoint_of_a_method_that_is_gone_is_refused_with_the_list(tmp_path: Path) -> None:
    METHODS.register("mine", GradientMethod(doubled), help="made by a test")
    try:
        fit(changed(epochs=1, batch_size=600, method="mine", milestones=()), load_dataset("digits"), tmp_path)
    finally:
        METHODS.remove("mine")
    with pytest.raises(Exception, match="'mine'; allowed: 'ide', 'spide', 'bptt'"):
        load_checkpoint(tmp_path / LAST)


def test_settings_of_one_method_say_so_in_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    known = {field.name for field in fields(TrainingConfig)}
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for name in METHODS:
        for setting in METHODS.get(name).settings:
            assert setting in known
            option = shown.index(f"--training.{setting.replace('_', '-')}")
            assert f"{name} alone:" in shown[option : option + 120]


def test_every_registered_name_is_importable() -> None:
    """The built-in functions are found by their names: a misspelt one would show here."""
    for name in METHODS:
        assert callable(METHODS.get(name).load())
    for registry in (SOLVERS, SURROGATES):
        for name in registry:
            assert callable(registry.get(name))
    assert torch.equal(SURROGATES.get("rectangular")(torch.tensor([0.0, 0.5])), torch.tensor([True, False]))
