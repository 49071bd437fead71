"""A layer kind from outside the package: a depthwise convolution, registered here as CONTRIBUTING says.

It is written, trained, lowered, quantized and run like the package's own kinds.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

import trained
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.config import LAYER_KINDS, LayerKind, LayerSpec, Shape, parse_spec
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.errors import ConfigError, SpecError, UnsupportedError
from fsnn_lava.hardware import DENSE
from fsnn_lava.network import FeedbackSNN, apply_layer, apply_transpose, layer_matrix
from fsnn_lava.quantization import quantize
from fsnn_lava.training import BEST, fit
from fsnn_lava.training.checkpoint import load_checkpoint, new_model
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates
from fsnn_lava.training.gradients.spide import SpideSettings, spide_rates
from short_training import changed, short_digits


def _same(layer: LayerSpec, shape: Shape) -> Shape:
    if len(shape) != 3 or layer.kernel % 2 == 0:
        raise SpecError(f"depthwise {layer} is given {shape}; it needs (channels, height, width) and an odd kernel.")
    return shape


def _weight_shape(layer: LayerSpec, shape: Shape) -> Shape:
    return (shape[0], 1, layer.kernel, layer.kernel)


def _apply(weight: Tensor, x: Tensor, layer: LayerSpec) -> Tensor:
    return functional.conv2d(x, weight, padding=layer.kernel // 2, groups=len(weight))


DEPTHWISE = LayerKind("D<kernel>", _same, _weight_shape, _apply)


@pytest.fixture(autouse=True)
def _depthwise() -> Iterator[None]:
    LAYER_KINDS.register("depthwise", DEPTHWISE, help="convolution of each channel by itself")
    yield
    LAYER_KINDS.remove("depthwise")


def as_convolution(weight: Tensor) -> Tensor:
    """The kernels (C, C, K, K) of the plain convolution that the depthwise one with kernels (C, 1, K, K) is."""
    return torch.eye(len(weight), dtype=weight.dtype)[:, :, None, None] * weight


def test_notation_reads_writes_and_counts_it() -> None:
    spec = parse_spec("4C3s-D3 (F4C3)")
    assert spec.layers[1] == LayerSpec("depthwise", 0, 3)
    assert str(parse_spec("4C3s- D5 (FD3)")) == "4C3s-D5 (FD3)"
    assert [p.shape for p in parse_spec("4C3s-D3").populations((1, 8, 8))] == [(4, 4, 4), (4, 4, 4)]
    assert parse_spec("4C3s-D3").parameters((1, 8, 8)) == parse_spec("4C3s").parameters((1, 8, 8)) + 4 * 9 + 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "4C3-X3",
            'layer 2 of "4C3-X3": cannot read "X3"; expected <channels>C<kernel>[s|u], P<window>, D<kernel> (dep',
        ),
        ("4C3 (FX)", 'cannot read "FX"; expected <channels>C<kernel>[u], D<kernel> (depthwise) or <units> after the F'),
        ("D0", 'layer 1 of "D0": kernel 0 in "D0"; allowed: 1 .. 255.'),
        ("D3-P2", "pool P2 follows D3; a pool must follow a convolution."),
    ],
)
def test_bad_notation_names_it(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec(text)


def test_its_own_rules_are_kept() -> None:
    message = 'layer 2 of "4C3-D2": depthwise D2 is given (4, 8, 8); it needs (channels, height, width) and an odd'
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec("4C3-D2").populations((1, 8, 8))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            ("depthwis", 0, 3),
            'no layer kind "depthwis" (did you mean "depthwise"?); there are: conv, pool, linear, dep',
        ),
        (("depthwise", 4, 3), "contradicts itself; D<kernel> says no features, which is 0 then"),
        (("depthwise", 0, 3, 2), "contradicts itself; D<kernel> says no stride, which is 1 then"),
        (("depthwise", 0, 3, 1, True), "contradicts itself; only a convolution can be transposed"),
    ],
)
def test_layers_of_no_or_another_form_are_refused(layer: tuple[str, int, int], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        LayerSpec(*layer)


@pytest.mark.parametrize(
    "form",
    ["<features>C<kernel>", "P<kernel>", "<features>", "D-<kernel>", "D<size>", "E<kernel>(", "", "D<kernel>x<kernel>"],
)
def test_forms_that_cannot_be_told_apart_are_refused(form: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f'form "{form}" of a layer kind; allowed: letters, digits')):
        LayerKind(form, _same, _weight_shape, _apply)


def test_two_kinds_of_one_form_are_refused() -> None:
    LAYER_KINDS.register("double", DEPTHWISE, help="the same again")
    try:
        with pytest.raises(SpecError, match='"D3" can be read as depthwise or double; each layer kind must have a'):
            parse_spec("4C3-D3")
    finally:
        LAYER_KINDS.remove("double")


@pytest.mark.parametrize("name", ["conv", "pool", "linear"])
def test_names_of_the_own_kinds_are_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=f'layer kind "{name}": the name is taken'):
        LAYER_KINDS.register(name, DEPTHWISE, help="mine")


def test_map_adjoint_and_matrix_are_those_of_the_plain_convolution() -> None:
    generator, layer, plain = torch.Generator().manual_seed(0), LayerSpec("depthwise", 0, 3), LayerSpec("conv", 3, 3)
    weight, x, y = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 1, 3, 3), (2, 3, 5, 4), (2, 3, 5, 4))
    )
    bias, wide = torch.arange(3, dtype=torch.float64), as_convolution(weight)
    # 1e-12: the same products of float64, summed in another order.
    assert_close(apply_layer(layer, weight, bias, x), apply_layer(plain, wide, bias, x), rtol=0, atol=1e-12)
    adjoint = apply_transpose(layer, weight, y, (3, 5, 4))
    assert_close(adjoint, apply_transpose(plain, wide, y, (3, 5, 4)), rtol=0, atol=1e-12)
    assert torch.equal(layer_matrix(layer, weight, (3, 5, 4)), layer_matrix(plain, wide, (3, 5, 4)))


def network(notation: str, *, seed: int = 0) -> FeedbackSNN:
    config = changed(network={"notation": notation, "dropout": 0.0, "time_steps": 12}, seed=seed)
    return new_model(config, (1, 6, 6), 10).double().train()


def gradients(model: FeedbackSNN) -> tuple[Tensor, dict[str, Tensor]]:
    """Rates of the last population and the gradients of IDE, for the same inputs and the same loss each time."""
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand((4, 1, 6, 6), generator=generator, dtype=torch.float64)
    found = implicit_rates(model, x, time_steps=12, settings=AdjointSettings(tolerance=1e-12, max_steps=300))
    (found.rates * torch.randn(found.rates.shape, generator=generator, dtype=torch.float64)).sum().backward()
    return found.rates.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_rates_and_gradients_are_those_of_the_plain_convolution() -> None:
    """The one goes through the kind's own product and dense steps, the other through events."""
    ours, plain = network("3C3-D3 (F3C3)"), network("3C3-3C3 (F3C3)")
    state = ours.state_dict()
    plain.load_state_dict(state | {"feedforward.1.weight": as_convolution(state["feedforward.1.weight"])})
    (rates, found), (expected_rates, expected) = gradients(ours), gradients(plain)
    assert 0.02 < rates.mean() < 0.98, "silent or saturated: the test says nothing"
    assert_close(rates, expected_rates, rtol=0, atol=1e-12)
    assert found.keys() == expected.keys()
    assert found["feedforward.1.weight"].abs().max() > 1e-3
    channels = torch.arange(3)
    expected["feedforward.1.weight"] = expected["feedforward.1.weight"][channels, channels][:, None]
    for name, gradient in found.items():
        # 1e-9: both adjoint systems are solved to 1e-12 of their right-hand side.
        assert_close(gradient, expected[name], rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            LayerKind("E<kernel>", _same, lambda layer, shape: (1, shape[0], 3, 3), _apply),
            "other E3 has a weight of shape (1, 3, 3, 3); allowed: two axes or more, the first one the 3 channels",
        ),
        (
            LayerKind("E<kernel>", _same, _weight_shape, lambda weight, x, layer: _apply(weight, x, layer)[..., 1:]),
            "other E3: its product has the shape (2, 3, 5, 3); expected (2, 3, 5, 4), as its output shape says",
        ),
        (
            LayerKind("E<kernel>", lambda layer, shape: shape[1:], _weight_shape, _apply),
            "other E3 makes (5, 4) of (3, 5, 4); allowed: (C, H, W) or (N,), all >= 1.",
        ),
    ],
)
def test_kinds_that_contradict_themselves_are_refused(kind: LayerKind, message: str) -> None:
    LAYER_KINDS.register("other", kind, help="a wrong one")
    try:
        layer = LayerSpec("other", 0, 3)
        with pytest.raises(SpecError, match=re.escape(message)):
            apply_layer(layer, torch.zeros(layer.weight_shape((3, 5, 4))), None, torch.zeros(2, 3, 5, 4))
    finally:
        LAYER_KINDS.remove("other")


def test_trained_lowered_and_quantized(tmp_path: Path) -> None:
    data = short_digits()
    config = changed(network={"notation": "4C3s-D3 (FD3)", "dropout": 0.1}, epochs=1)
    start = new_model(config, (1, 8, 8), 10).state_dict()
    fit(config, data, tmp_path)
    network = load_checkpoint(tmp_path / BEST)
    for name in ("feedforward.1.weight", "feedback.weight"):
        assert not torch.equal(network.weights[name], start[name]), f"{name} did not learn"
    lowered = lower(network)
    weights = {c.name: (c.geometry, c.weight.shape) for c in lowered.connections}
    assert weights["population1_to_population2"] == weights["feedback"] == (DENSE, (64, 64))
    names, codes = [p.name for p in lowered.populations], trained.some_codes(20)
    expected = run_torch(network, lowered, codes, time_steps=lowered.time_steps, timing="hardware")
    found = FloatSimulator().run(lowered, codes, record=names)
    for name in names:
        assert np.array_equal(found.spikes[name], expected.spikes[name]), name
        assert 0.02 < expected.spikes[name].mean() < 0.98, f"{name} is silent or saturated: the test says nothing"
    integer, _ = quantize(lowered, data.train)
    counts = IntegerSimulator().run(integer, codes).spike_counts
    for name in names:  # each count of 6 steps is a step off at most for most neurons
        assert np.mean(np.abs(counts[name] - expected.spike_counts[name])) < 0.2, name


@pytest.mark.parametrize("notation", ["3C3s-D3 (F3C3)", "D3-4C3", "2C3-D3-8"])
def test_random_networks_spike_as_torch(notation: str) -> None:
    network = trained.random_network(notation, leak=0.95)
    lowered, codes = lower(network, timing="sequential"), trained.some_codes()
    expected = run_torch(network, lowered, codes, time_steps=20)
    found = FloatSimulator().run(lowered, codes, record=[p.name for p in lowered.populations])
    for name, spikes in expected.spikes.items():
        assert np.array_equal(spikes, found.spikes[name]), name
        assert 0.02 < spikes.mean() < 0.98, f"{name} is silent or saturated: the test says nothing"


def test_too_large_a_matrix_is_refused_in_the_lowering() -> None:
    network = trained.random_network("4C3-D3", input_shape=(1, 24, 24))
    message = (
        "depthwise D3 from (4, 24, 24): found a matrix of 2304 x 2304 numbers, as which alone hardware can have a "
        "layer of this kind; allowed: at most 4194304"
    )
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        lower(network)


def test_spide_refuses_it() -> None:
    plain = {"notation": "3C3-D3", "batch_norm": False, "dropout": 0.0}
    with pytest.raises(ConfigError, match=r'layer 2 of network\.notation "3C3-D3": found .D3.; allowed: convolutions'):
        changed(network=plain, method="spide")
    model = new_model(changed(network=plain), (1, 6, 6), 10)
    with pytest.raises(ConfigError, match="SPIDE: D3 is of the kind depthwise, from outside; allowed: convolutions"):
        spide_rates(model, torch.zeros(2, 1, 6, 6), time_steps=4, settings=SpideSettings())
