"""How a gradient is found, by name: gradient methods, solvers of the adjoint system, surrogate curves.

The one place where each is added; from another package by `Registry.register` or by an entry point of the registry's
group. The functions themselves need torch and are imported when they are asked for. `settings` checks a configuration
against these names, `fsnn train --help` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsnn_lava.config.registry import Registry, loaded
from fsnn_lava.errors import ConfigError

if TYPE_CHECKING:
    from fsnn_lava.config.settings import NetworkConfig, TrainingConfig


@dataclass(frozen=True)
class GradientMethod:
    """A way to find the gradient of the measured rates, as far as a configuration has to know it.

    Parameters
    ----------
    rates : measures the rates, with a gradient to every parameter: a function that keeps the protocol
        `fsnn_lava.training.RatesWithGradient`, or ``package.module:name`` of it, which is imported on first use.
    settings : names of the settings under [training] that this method alone uses.
    integers : whether it can find the gradient at the rates of a network in integers.
    at_equilibrium : whether the gradient is one of an equilibrium, which neurons that reset to zero do not have.
    check : raises `ConfigError` for settings that the method cannot do; None: it can do all.
    """

    rates: Callable[..., Any] | str
    settings: tuple[str, ...] = ()
    integers: bool = False
    at_equilibrium: bool = True
    check: Callable[[NetworkConfig, TrainingConfig], None] | None = None

    def load(self) -> Callable[..., Any]:
        """Return the function of ``rates``, imported if need be."""
        function: Callable[..., Any] = loaded(self.rates)
        return function


METHODS: Registry[GradientMethod] = Registry("gradient method", group="fsnn_lava.methods")
"""Values of `TrainingConfig.method`."""
SOLVERS: Registry[Callable[..., Any]] = Registry("adjoint solver", group="fsnn_lava.solvers")
"""Values of `TrainingConfig.adjoint_solver`: functions that keep the protocol `fsnn_lava.network.Solver`."""
SURROGATES: Registry[Callable[..., Any]] = Registry("surrogate", group="fsnn_lava.surrogates")
"""Values of `TrainingConfig.surrogate`: curves, functions of z = (v - v_threshold) / width with area 1."""


def require(holds: bool, name: str, found: object, allowed: str) -> None:
    """Raise `ConfigError` for the setting of that name unless the condition holds."""
    if not holds:
        raise ConfigError(f"{name}: found {found!r}; allowed: {allowed}")


def _check_spide(network: NetworkConfig, training: TrainingConfig) -> None:
    """Every connection must be a fixed linear map that spikes can run through backwards."""
    spide = 'with training.method = "spide"'
    require(
        not network.batch_norm,
        "network.batch_norm",
        network.batch_norm,
        f"false {spide}: statistics of a batch have no spiking form",
    )
    layers = network.layers()
    for where, (layer, pool) in layers.items():
        allowed = f"convolutions, pools and linear layers {spide}, which cannot run backwards through a layer kind from"
        require(not layer.is_outside, where, str(layer), f"{allowed} outside")
        allowed = f"a pool into a population of its own {spide}: P{0 if pool is None else pool.kernel}"
        require(pool is None, where, f"{layer}-{pool}", allowed)
    pools = not network.connections and any(layer.kind == "pool" for layer, _ in layers.values())
    require(
        not pools or network.pooling == "spiking",
        "network.pooling",
        network.pooling,
        f'"spiking" {spide} and a pool in network.notation',
    )
    require(
        training.precision != "bf16",
        "training.precision",
        training.precision,
        f"float32 or tf32 {spide}: a spike's weights must keep float32's bits",
    )


_GRADIENTS = "fsnn_lava.training.gradients"
METHODS.register(
    "ide",
    GradientMethod(
        f"{_GRADIENTS}.ide:ide",
        ("adjoint", "adjoint_solver", "adjoint_tolerance", "adjoint_max_steps", "contraction"),
        integers=True,
    ),
    help="implicitly, at the equilibrium",
)
METHODS.register(
    "spide",
    GradientMethod(f"{_GRADIENTS}.spide:spide", ("time_steps_back", "loss_scale"), integers=True, check=_check_spide),
    help="by a second phase of spikes",
)
METHODS.register(
    "bptt",
    GradientMethod(f"{_GRADIENTS}.bptt:bptt", ("surrogate", "surrogate_width"), at_equilibrium=False),
    help="back through all steps, the baseline",
)

_SOLVERS = "fsnn_lava.network.fixed_point"
SOLVERS.register("fixed_point", f"{_SOLVERS}:fixed_point_iteration", help="the map again and again")
SOLVERS.register("anderson", f"{_SOLVERS}:anderson", help="Anderson acceleration")
SOLVERS.register("broyden", f"{_SOLVERS}:broyden", help="Broyden's method")

SURROGATES.register("rectangular", f"{_GRADIENTS}.surrogate:rectangular", help="constant within the width")
SURROGATES.register("arctan", f"{_GRADIENTS}.surrogate:arctan", help="the derivative of an arc tangent")
