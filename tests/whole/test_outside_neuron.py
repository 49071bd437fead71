"""A neuron model registered from outside: trained with, kept, exported and run as the built-in one of its constants."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsnn_lava import lower, quantize, run
from fsnn_lava.cli.train import parse_arguments
from fsnn_lava.config import NEURONS, NetworkConfig, TrainConfig, config_from_dict
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import FeedbackSNN
from fsnn_lava.training import LAST, fit, load_checkpoint
from short_training import changed, short_digits


def slow_leak(config: NetworkConfig) -> FloatNeuron:
    """A neuron with a time constant of 16 steps, whatever leak is set."""
    return FloatNeuron(config.v_threshold, config.reset_amount, math.exp(-1 / 16))


@pytest.fixture
def registered() -> Iterator[None]:
    NEURONS.register("slow_leak", slow_leak, help="made by a test")
    yield
    NEURONS.remove("slow_leak")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("backend", ["simulator", pytest.param("lava-fixed", marks=pytest.mark.lava)])
def test_neuron_from_outside_is_trained_exported_and_run(tmp_path: Path, backend: str) -> None:
    data = short_digits()
    same = {"slow_leak": {"neuron": "slow_leak"}, "lif": {"leak": math.exp(-1 / 16)}}
    results = []
    for name, network in same.items():
        (tmp_path / name).mkdir()
        fit(changed(network=network, epochs=1, milestones=()), data, tmp_path / name)
        trained = load_checkpoint(tmp_path / name / LAST)
        assert trained.config.network.neuron == name
        quantized, _ = quantize(lower(trained), data.train, bits=8)
        results.append(run(quantized, data.test[:5], backend=backend).spike_counts)
    assert all(np.array_equal(results[0][name], counts) for name, counts in results[1].items())
    assert sum(counts.sum() for counts in results[0].values()) > 20


@pytest.mark.usefixtures("registered")
def test_checkpoints_of_built_in_neurons_stay_as_they_were(tmp_path: Path) -> None:
    """Files do not name the built-in model, so that versions that know no other one read them."""
    for name in ("lif", "slow_leak"):
        (tmp_path / name).mkdir()
        fit(changed(network={"neuron": name}, epochs=1, milestones=()), short_digits(), tmp_path / name)
    texts = [(tmp_path / name / LAST).read_bytes() for name in ("lif", "slow_leak")]
    assert [b"slow_leak" in text for text in texts] == [False, True]
    assert [b'"neuron' in text or b'\\"neuron' in text for text in texts] == [False, True]
    with pytest.raises(ConfigError, match=r"other settings: network.neuron \(None -> 'slow_leak'\)"):
        fit(
            changed(network={"neuron": "slow_leak"}, epochs=1, milestones=()),
            short_digits(),
            tmp_path / "lif",
            resume=True,
        )


@pytest.mark.usefixtures("registered")
def test_command_line_offers_neurons(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_arguments(["--network.neuron", "slow_leak"]).settings.network.neuron == "slow_leak"
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    assert "{lif,slow_leak}" in shown
    assert "slow_leak: made by a test" in shown


def test_unknown_neuron_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match='no neuron "gone"; there are: lif'):
        TrainConfig(network=NetworkConfig(neuron="gone"))
    with pytest.raises(ConfigError, match=r"key \"network\.neuron\": found 'gone'; allowed: 'lif'"):
        config_from_dict({"network": {"neuron": "gone"}})


@pytest.mark.parametrize("made", [FloatNeuron(1.0, 1.0, 1.5), FloatNeuron(math.nan, 1.0, 1.0), (2.0, 2.0, 1.0)])
def test_what_is_no_neuron_of_the_law_is_refused(made: object) -> None:
    NEURONS.register("wrong", lambda _: made, help="made by a test")
    try:
        with pytest.raises(ConfigError, match='neuron "wrong" made'):
            FeedbackSNN(NetworkConfig("5 (F5)", neuron="wrong"), (4,))
    finally:
        NEURONS.remove("wrong")
    assert FeedbackSNN(NetworkConfig("5 (F5)"), (4,)).neurons == (FloatNeuron(2.0, 2.0, 1.0),)
