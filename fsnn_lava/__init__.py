"""Train feedback spiking networks by implicit differentiation; deploy them to Lava with proof.

Data flows one way::

    notation -> NetworkSpec -> TrainedNetwork -> float HardwareNetwork
             -> integer HardwareNetwork -> RunResult -> report

Contracts (NumPy only): `spec`, `config`, `data`, `ir`, `network_file`, `errors`.
Torch wing: `neuron`, `layers`, `solver`, `model`, `integer_model`, `gradients`, `checkpoint`, `training`.
Bridge between the wings: `lower`.
NumPy wing (no torch): `bounds`, `quantize`, `simulator`, `backends`, `verify`, `report`.

Importing this package imports neither torch nor lava.
"""

__version__ = "0.1.0"
