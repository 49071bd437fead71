"""The notation: shapes of populations, both directions, and every refusal by its message."""

import contextlib
import re

import pytest
from hypothesis import given, strategies as st

from fsnn_lava.config.notation import LayerSpec, NetworkSpec, PopulationSpec, parse_spec
from fsnn_lava.errors import SpecError

ALEXNET_F = "96C3s-256C3-384C3s-384C3-256C3 (F96C3u)"
CIFARNET_F = "128C3s-256C3-512C3s-1024C3-512C3 (F128C3u)"
MNIST_SHAPE = (1, 28, 28)


@pytest.mark.parametrize(
    ("text", "input_shape", "shapes"),
    [
        ("64C5s (F64C5)", MNIST_SHAPE, [(64, 14, 14)]),
        ("64C5s (F64C5)", (2, 34, 34), [(64, 17, 17)]),
        ("400 (F400)", MNIST_SHAPE, [(400,)]),
        ("400-30", (784,), [(400,), (30,)]),
        (ALEXNET_F, (3, 32, 32), [(96, 16, 16), (256, 16, 16), (384, 8, 8), (384, 8, 8), (256, 8, 8)]),
        ("64C5s-64C5s-64C5 (F64C3u)", MNIST_SHAPE, [(64, 14, 14), (64, 7, 7), (64, 7, 7)]),
        ("15C5-P2-40C5-P2-300", MNIST_SHAPE, [(15, 14, 14), (40, 7, 7), (300,)]),
        ("8C3s-4C3u", (3, 5, 9), [(8, 3, 5), (4, 6, 10)]),
        ("8C1s-4C1u", (1, 4, 4), [(8, 2, 2), (4, 4, 4)]),
    ],
)
def test_shapes_of_populations(text: str, input_shape: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
    assert [p.shape for p in parse_spec(text).populations(input_shape)] == shapes


def test_parse_gives_layers_and_feedback() -> None:
    assert parse_spec("64C5s-32C3u-P2-10C1 (F64C3u)") == NetworkSpec(
        layers=(
            LayerSpec("conv", 64, kernel=5, stride=2),
            LayerSpec("conv", 32, kernel=3, stride=2, transposed=True),
            LayerSpec("pool", 0, kernel=2, stride=2),
            LayerSpec("conv", 10, kernel=1),
        ),
        feedback=LayerSpec("conv", 64, kernel=3, stride=2, transposed=True),
    )
    assert parse_spec("400 (F400)") == NetworkSpec((LayerSpec("linear", 400),), LayerSpec("linear", 400))
    assert [layer.padding for layer in parse_spec("8C5-8C1-P2-10").layers] == [2, 0, 0, 0]


def test_pool_belongs_to_the_connection_before_it() -> None:
    first, second = parse_spec("15C5-P2-300").populations(MNIST_SHAPE)
    pool = LayerSpec("pool", 0, kernel=2, stride=2)
    assert first == PopulationSpec("population1", LayerSpec("conv", 15, kernel=5), pool, MNIST_SHAPE, (15, 14, 14))
    assert second == PopulationSpec("population2", LayerSpec("linear", 300), None, (15, 14, 14), (300,))


def test_spiking_pool_is_a_population() -> None:
    first, second, third = parse_spec("15C5-P2-300").populations(MNIST_SHAPE, pooling="spiking")
    pool = LayerSpec("pool", 0, kernel=2, stride=2)
    assert first == PopulationSpec("population1", LayerSpec("conv", 15, kernel=5), None, MNIST_SHAPE, (15, 28, 28))
    assert second == PopulationSpec("population2", pool, None, (15, 28, 28), (15, 14, 14))
    assert third == PopulationSpec("population3", LayerSpec("linear", 300), None, (15, 14, 14), (300,))


def test_spiking_pools_are_neurons_without_parameters() -> None:
    spec = parse_spec("15C5-P2-40C5-P2-300")
    assert [p.shape for p in spec.populations(MNIST_SHAPE, pooling="spiking")] == [
        *((15, 28, 28), (15, 14, 14), (40, 14, 14), (40, 7, 7), (300,))
    ]
    # input 784, then 11,760 + 2,940 + 7,840 + 1,960 + 300; merged: 2,940 + 1,960 + 300
    assert spec.neurons(MNIST_SHAPE, pooling="spiking") == 25_584
    assert spec.neurons(MNIST_SHAPE) == 5_984
    # 15 (25 + 1) + 40 (15 25 + 1) + 300 (1960 + 1) + 10 (300 + 1)
    assert spec.parameters(MNIST_SHAPE, pooling="spiking") == spec.parameters(MNIST_SHAPE) == 606_740


def test_feedback_fits_the_first_population_however_pools_are_read() -> None:
    """A merged pool shrinks the first population, a spiking one leaves it as large as its convolution made it."""
    spiking, merged = parse_spec("8C3-P2 (F8C3u)"), parse_spec("8C3-P2 (F8C3)")
    assert [p.shape for p in spiking.populations((1, 4, 4), pooling="spiking")] == [(8, 4, 4), (8, 2, 2)]
    assert spiking.neurons((1, 4, 4), pooling="spiking") == 16 + 128 + 32
    assert spiking.parameters((1, 4, 4), 3, pooling="spiking") == 80 + 576 + 99
    assert [p.shape for p in merged.populations((1, 4, 4))] == [(8, 2, 2)]
    for count in (merged.populations, merged.neurons, merged.parameters):
        with pytest.raises(SpecError, match=r"F8C3 makes \(8, 2, 2\) of population2 .* population1 is \(8, 4, 4\)"):
            count((1, 4, 4), pooling="spiking")


def test_transposed_convolution_counts_no_bias() -> None:
    # 3*3 weights for each of 2*4 channel pairs, no bias; 4*8*8 inputs to 10 classes with bias
    assert parse_spec("4C3u").parameters((2, 4, 4)) == 72 + 2560 + 10


def test_a_pool_has_no_parameters() -> None:
    # 1*1*8 weights + 8 biases; the classifier sees the pooled 8*2*2
    assert parse_spec("8C1-P2").parameters((1, 4, 4)) == 16 + 320 + 10


@pytest.mark.parametrize("text", ["  64C5s-64C5 (F64C3u) ", "64C5s - 64C5(F64C3u)", "64C5s-64C5 ( F64C3u )"])
def test_blanks_between_parts_do_not_matter(text: str) -> None:
    assert str(parse_spec(text)) == "64C5s-64C5 (F64C3u)"


def _convolution(mark: str, channels: int, half_kernel: int) -> LayerSpec:
    return LayerSpec("conv", channels, 2 * half_kernel + 1, 2 if mark else 1, mark == "u")


CHANNELS = st.integers(1, 1_000_000)
KERNELS = st.integers(0, 127)
POOLED = st.tuples(
    st.builds(_convolution, st.sampled_from(["", "s", "u"]), CHANNELS, KERNELS),
    st.none() | st.builds(lambda window: LayerSpec("pool", 0, window, window), st.integers(2, 255)),
)
LINEAR = st.builds(LayerSpec, st.just("linear"), CHANNELS)


@st.composite
def networks(draw: st.DrawFn) -> NetworkSpec:
    """Any network that the notation can say, whether or not its shapes fit an input."""
    pairs = draw(st.lists(POOLED, max_size=4))
    layers = [layer for pair in pairs for layer in pair if layer]
    layers += draw(st.lists(LINEAR, min_size=0 if layers else 1, max_size=3))
    convolution = st.builds(_convolution, st.sampled_from(["", "u"]), CHANNELS, KERNELS)
    feedback = LINEAR if layers[-1].kind == "linear" else LINEAR | convolution
    return NetworkSpec(tuple(layers), draw(st.none() | feedback))


@given(networks())
def test_notation_round_trip(spec: NetworkSpec) -> None:
    assert parse_spec(str(spec)) == spec


@given(st.text(alphabet="0123456789CPFsu-() x", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(SpecError):  # any other exception is a fault of ours
        spec = parse_spec(text)
        assert parse_spec(str(spec)) == spec


LAYER_FORMS = "expected <channels>C<kernel>[s|u], P<window> or <units>, e.g. 64C3."
ONE = "the notation can say one feedback, from the last population to the first."
FEEDBACK_FORMS = f"expected <channels>C<kernel>[u] or <units> after the F, e.g. (F64C3); {ONE}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"": no layers found; expected them joined by "-", e.g. 64C5s-64C5 (F64C3u).'),
        ("  ", "no layers found"),
        ("(F64C5)", "no layers found"),
        ("64C5s-64D3", f'layer 2 of "64C5s-64D3": cannot read "64D3"; {LAYER_FORMS}'),
        (
            "64C5 F64C5",
            f'layer 1 of "64C5 F64C5": cannot read "64C5 F64C5"; {LAYER_FORMS} A feedback stands in parentheses at the '
            "end, without a dash: 64C5s (F64C5).",
        ),
        (
            "64C5-(F64C5)",
            f'layer 2 of "64C5-(F64C5)": cannot read ""; {LAYER_FORMS} A feedback stands in parentheses at the end, '
            "without a dash: 64C5s (F64C5).",
        ),
        ("64C5--3", f'layer 2 of "64C5--3": cannot read ""; {LAYER_FORMS}'),
        ("64C5-", f'layer 2 of "64C5-": cannot read ""; {LAYER_FORMS}'),
        ("-5", f'layer 1 of "-5": cannot read ""; {LAYER_FORMS}'),
        ("64 C5", f'layer 1 of "64 C5": cannot read "64 C5"; {LAYER_FORMS}'),
        ("64c5", f'layer 1 of "64c5": cannot read "64c5"; {LAYER_FORMS}'),
        ("\u0663C3", f'layer 1 of "\u0663C3": cannot read "\u0663C3"; {LAYER_FORMS}'),
        ("64C5su", f'layer 1 of "64C5su": cannot read "64C5su"; {LAYER_FORMS}'),
        ("64C4", 'layer 1 of "64C4": kernel 4 in "64C4"; allowed: odd numbers 1 .. 255, because the padding'),
        ("64C0", 'layer 1 of "64C0": kernel 0 in "64C0"; allowed: odd numbers 1 .. 255'),
        ("64C257", 'layer 1 of "64C257": kernel 257 in "64C257"; allowed: odd numbers 1 .. 255'),
        ("5-0C5", 'layer 2 of "5-0C5": 0 channels in "0C5"; allowed: 1 .. 1000000.'),
        ("0", 'layer 1 of "0": 0 units in "0"; allowed: 1 .. 1000000.'),
        ("1000001", 'layer 1 of "1000001": 1000001 units in "1000001"; allowed: 1 .. 1000000.'),
        ("9" * 5000, "a number of 5000 digits; allowed: at most 1000000."),
        ("64C5-P1", 'layer 2 of "64C5-P1": window 1 of pool P1; allowed: 2 .. 255.'),
        ("64C5-P256", 'layer 2 of "64C5-P256": window 256 of pool P256; allowed: 2 .. 255.'),
        ("P2-64C5", 'layer 1 of "P2-64C5": pool P2 comes first; a pool must follow a convolution.'),
        ("400-P2", 'layer 2 of "400-P2": pool P2 follows 400; a pool must follow a convolution.'),
        ("64C5-P2-P3", 'layer 3 of "64C5-P2-P3": pool P3 follows P2; a pool must follow a convolution.'),
        ("400-64C5", 'layer 2 of "400-64C5": convolution 64C5 follows the linear layer 400; after a linear layer only'),
        ("64C5 (F64C5", 'feedback of "64C5 (F64C5": the "(" at character 6 is never closed; expected ")" at the end.'),
        ("64C5 F64C5)", '"64C5 F64C5)": found ")" at character 11 without a "(" before it.'),
        ("64C5 (F64C5) x", 'feedback of "64C5 (F64C5) x": found "x" after it; nothing may follow the feedback; ' + ONE),
        ("64C5 (F64C5) (F3C3)", 'found "(F3C3)" after it; nothing may follow the feedback; ' + ONE),
        ("64C5 (64C5)", f'feedback of "64C5 (64C5)": cannot read "64C5"; {FEEDBACK_FORMS}'),
        ("64C5 ()", f'feedback of "64C5 ()": cannot read ""; {FEEDBACK_FORMS}'),
        ("64C5 (FX)", f'feedback of "64C5 (FX)": cannot read "FX"; {FEEDBACK_FORMS}'),
        ("64C5 (F0C5)", 'feedback of "64C5 (F0C5)": 0 channels in "0C5"; allowed: 1 .. 1000000.'),
        ("64C5 (F64C2)", 'feedback of "64C5 (F64C2)": kernel 2 in "64C2"; allowed: odd'),
        ("64C5-P2 (FP2)", f'feedback of "64C5-P2 (FP2)": cannot be the pool P2; {FEEDBACK_FORMS}'),
        ("64C5 (F64C5s)", 'feedback of "64C5 (F64C5s)": F64C5s would shrink its target'),
        (
            "400 (F64C5)",
            'feedback of "400 (F64C5)": convolution F64C5 follows the linear layer 400; expected F<units>.',
        ),
    ],
)
def test_bad_notation_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec(text)


@pytest.mark.parametrize(
    ("text", "input_shape", "message"),
    [
        ("64C5", (784,), 'layer 1 of "64C5": convolution 64C5 is given the shape (784,); it needs (channels, height'),
        ("64C5s-P3", MNIST_SHAPE, 'layer 2 of "64C5s-P3": pool P3 is given 14x14; its window must divide both sides.'),
        ("8C3-P2", (1, 4, 5), 'layer 2 of "8C3-P2": pool P2 is given 4x5; its window must divide both sides.'),
        (
            "64C5s-32C5s (F64C3)",
            MNIST_SHAPE,
            'feedback of "64C5s-32C5s (F64C3)": F64C3 makes (64, 7, 7) of population2 (32, 7, 7), '
            "but its target population1 is (64, 14, 14); both shapes must be equal.",
        ),
        ("8C3-P2 (F8C3u)", (1, 4, 4), "F8C3u makes (8, 4, 4) of population1 (8, 2, 2), but its target population1 is"),
        ("400 (F300)", (784,), "F300 makes (300,) of population1 (400,), but its target population1 is (400,)"),
        ("400", (28, 28), "input shape (28, 28); allowed: (channels, height, width) or (N,), all >= 1."),
        ("400", (), "input shape (); allowed"),
        ("400", (1, 0, 28), "input shape (1, 0, 28); allowed"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(text: str, input_shape: tuple[int, ...], message: str) -> None:
    spec = parse_spec(text)
    for count in (spec.populations, spec.neurons, spec.parameters):
        with pytest.raises(SpecError, match=re.escape(message)):
            count(input_shape)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (("pool", 3, 2, 2, False), "a pool has no features, its stride is its window"),
        (("pool", 0, 2, 1, False), "a pool has no features, its stride is its window"),
        (("linear", 10, 3, 1, False), "a linear layer has kernel 0 and stride 1"),
        (("conv", 10, 3, 3, False), "the stride is 1 or 2, of a transposed convolution 2"),
        (("conv", 10, 3, 1, True), "the stride is 1 or 2, of a transposed convolution 2"),
    ],
)
def test_contradicting_fields_are_refused(layer: tuple[str, int, int, int, bool], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LayerSpec(*layer)


def test_a_network_needs_a_layer() -> None:
    with pytest.raises(SpecError, match="the network has no layers; expected at least one"):
        NetworkSpec(())
