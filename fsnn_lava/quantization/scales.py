"""What decides the integers of a network once its weights are known: reset synapses, exponents, parts and bits.

`quantize` chooses them for a float network. A training in integers keeps those that it began with, and says so in the
provenance of what it made, under `PROVENANCE`: such a network is quantized with them, to the integers that it was
trained with, and with nothing else.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsnn_lava.config import DeployConfig, WeightBits, WeightExponents
from fsnn_lava.errors import ConfigError, NetworkError
from fsnn_lava.hardware import ALWAYS_ON, Connection, FloatNeuron, HardwareNetwork, IntegerNeuron, summed_weight
from fsnn_lava.quantization.rounding import MOST_PARTS

OF_QUANTIZATION = ("deployment", "quantization")
"""Entries that `quantize` adds to a provenance."""

ResetSynapse = tuple[int, int]
"""Mantissa and exponent of the weight by which a neuron's spike inhibits itself."""

PROVENANCE = "trained_integers"
"""Entry of a float network's provenance that says with which scales it was trained in integers."""


def part_names(connection: Connection) -> tuple[str, ...]:
    """Names of the integer connections that may stand for one float connection together."""
    if connection.source == ALWAYS_ON:
        return connection.name, f"{connection.name}_coarse", f"{connection.name}_pulse"
    return connection.name, *(f"{connection.name}_part{k}" for k in range(2, MOST_PARTS + 1))


def parts_of(integer: HardwareNetwork, connection: Connection) -> list[Connection]:
    """Integer connections that stand for a float one together: their weights add up to its weights."""
    return [c for c in integer.incoming(connection.target) if c.name in part_names(connection)]


def dequantized(integer: HardwareNetwork) -> HardwareNetwork:
    """The float network that integers stand for: what `quantize` was given, if that was trained in integers.

    Its connections are those of the chain, then those back to an earlier population or the same; its provenance is
    without what `quantize` added.
    """
    order = {p.name: place for place, p in enumerate(integer.populations)}
    scale: dict[str, float] = {}
    populations = []
    for p in integer.populations:
        assert isinstance(p.neuron, IntegerNeuron)
        scale[p.name] = p.neuron.scale
        threshold, reset = (amount * p.neuron.scale for amount in (p.neuron.v_threshold, p.neuron.reset_amount))
        neuron = FloatNeuron(threshold, reset, p.neuron.leak, p.neuron.reset, p.neuron.current_leak)
        populations.append(dataclasses.replace(p, neuron=neuron))
    names = {name for c in integer.connections for name in part_names(c)[1:]}
    connections = []
    for c in integer.connections:
        if c.name not in names:
            weight = summed_weight(parts_of(integer, c)) * scale[c.target]
            connections.append(dataclasses.replace(c, weight=weight, weight_exponent=0, weight_bits=0))
    connections.sort(key=lambda c: order.get(c.source, -1) >= order[c.target])  # a stable sort
    return dataclasses.replace(
        integer,
        populations=tuple(populations),
        connections=tuple(connections),
        readout=dataclasses.replace(integer.readout, integrators=None),
        provenance={name: value for name, value in integer.provenance.items() if name not in OF_QUANTIZATION},
    )


@dataclass(frozen=True)
class Scales:
    """Scales of a network.

    Parameters
    ----------
    resets : population -> reset synapse (m, e).
    exponents, parts : float connection that is not a constant current -> weight exponent; number of integer
        connections that it is shared by.
    weight_bits, symmetric : of the mantissas.
    """

    resets: Mapping[str, ResetSynapse]
    exponents: Mapping[str, int]
    parts: Mapping[str, int]
    weight_bits: WeightBits
    symmetric: bool

    @classmethod
    def of(cls, floating: HardwareNetwork, integer: HardwareNetwork, *, symmetric: bool) -> Scales:
        """Scales with which a float network was quantized."""
        resets: dict[str, ResetSynapse] = {}
        for p in integer.populations:
            assert isinstance(p.neuron, IntegerNeuron)
            resets[p.name] = p.neuron.reset_mantissa, p.neuron.reset_exponent
        found = {c.name: parts_of(integer, c) for c in floating.connections if c.source != ALWAYS_ON}
        return cls(
            resets,
            {name: parts[0].weight_exponent for name, parts in found.items()},
            {name: len(parts) for name, parts in found.items()},
            typing.cast(WeightBits, max(part.weight_bits for parts in found.values() for part in parts)),
            symmetric,
        )

    @classmethod
    def trained(cls, network: HardwareNetwork) -> Scales | None:
        """Scales in which a float network was trained; None: it was trained in floats.

        Raises
        ------
        NetworkError : if the entry of its provenance cannot be understood.
        """
        entry = network.provenance.get(PROVENANCE)
        if entry is None:
            return None
        try:
            resets = {name: (int(m), int(e)) for name, (m, e) in entry["resets"].items()}
            return cls(**{**entry, "resets": resets})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NetworkError(
                f'network "{network.name}": the entry "{PROVENANCE}" of its provenance cannot be understood: {error}'
            ) from None

    def as_dict(self) -> dict[str, Any]:
        """Return for a provenance, JSON-compatible."""
        return dataclasses.asdict(self) | {"resets": {name: list(reset) for name, reset in self.resets.items()}}

    def deployment(self, config: DeployConfig, network: HardwareNetwork) -> DeployConfig:
        """The settings of a deployment that keeps these scales, of the network that was trained in them.

        Raises
        ------
        ConfigError : if the config asks for other integers.
        """
        default = DeployConfig()
        of_spikes = [c.name for c in network.connections if c.source != ALWAYS_ON and not network.is_graded(c)]
        exponents: WeightExponents = "all" if any(self.exponents[name] < 0 for name in of_spikes) else "input"
        asked = [
            (f"weight_bits {config.weight_bits}", config.weight_bits, default.weight_bits, self.weight_bits),
            ("symmetric", config.symmetric, default.symmetric, self.symmetric),
            (f"exponents {config.exponents}", config.exponents, default.exponents, exponents),
            (f"threshold {config.threshold}", config.threshold, default.threshold, "full"),
            (f"rounding {config.rounding}", config.rounding, default.rounding, "nearest"),
            (f"currents {config.currents}", config.currents, default.currents, "whole"),
        ]
        wrong = [name for name, value, usual, own in asked if value not in (usual, own)]
        if wrong:
            raise self.refusal(", ".join(wrong))
        own = {"weight_bits": self.weight_bits, "symmetric": self.symmetric, "rounding": "nearest", "currents": "whole"}
        return dataclasses.replace(config, **own)  # type: ignore[arg-type]

    def refusal(self, found: str) -> ConfigError:
        """The error for a request of other integers."""
        kind = "symmetric" if self.symmetric else "not symmetric"
        return ConfigError(
            f"found {found} for a network that was trained in integers; allowed: the weights that it has, "
            f"of {self.weight_bits} bits, {kind}; for others train it in them: fsnn train --from RUN "
            "--training.arithmetic integer --training.weight-bits N, and --training.symmetric or --training.exponents "
            "input for such ones"
        )
