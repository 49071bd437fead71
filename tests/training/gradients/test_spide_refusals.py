"""What SPIDE refuses, by its message, however it is asked: by settings, by a model, by a configuration."""

import math
from typing import Any

import pytest
import torch

from fsnn_lava.config import NetworkConfig, TrainingConfig, config_from_dict
from fsnn_lava.errors import ConfigError
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.training.gradients.methods import rates_with_gradient
from fsnn_lava.training.gradients.spide import SpideSettings, spide_rates

SETTINGS = SpideSettings()


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_scale_of_the_loss_is_positive_and_finite(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"loss_scale: found {value}; allowed: a finite number > 0"):
        SpideSettings(loss_scale=value)
    with pytest.raises(ConfigError, match=r"training\.loss_scale: found .*; allowed: a finite number > 0"):
        config_from_dict({"training": {"loss_scale": value}})


@pytest.mark.parametrize("value", [0, -3])
def test_second_phase_has_a_step(value: int) -> None:
    with pytest.raises(ConfigError, match=rf"time_steps_back: found {value}; allowed: at least 1"):
        SpideSettings(time_steps_back=value)
    with pytest.raises(ConfigError, match=rf"training\.time_steps_back: found {value}; allowed: at least 1"):
        config_from_dict({"training": {"time_steps_back": value}})


def test_there_is_a_process() -> None:
    with pytest.raises(ConfigError, match=r"processes: found 0; allowed: at least 1"):
        SpideSettings(processes=0)


@pytest.mark.parametrize("name", ["time_steps_back", "processes"])
@pytest.mark.parametrize("value", [1.5, 2.0, "1", True, None])
def test_counts_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: found {value!r}; allowed: at least 1, a whole number"):
        SpideSettings(**{name: value})


@pytest.mark.parametrize("value", ["1", True, None])
def test_scale_of_the_loss_is_a_number(value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^loss_scale: found {value!r}; allowed: a finite number > 0"):
        SpideSettings(loss_scale=value)


def spide(network: dict[str, object]) -> None:
    config_from_dict({"network": network, "training": {"method": "spide"}})


def test_configuration_with_batch_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.batch_norm: found True; allowed: false with training\.method"):
        spide({"notation": "20 (F20)"})


def test_configuration_whose_pool_is_no_population_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.pooling: found 'merged'; allowed: \"spiking\" with .* a pool"):
        spide({"notation": "4C3-P2-20", "batch_norm": False})
    spide({"notation": "4C3-P2-20", "batch_norm": False, "pooling": "spiking"})
    spide({"notation": "4C3-20", "batch_norm": False})


@pytest.mark.parametrize("way", ["spide_rates", "rates_with_gradient"])
@pytest.mark.parametrize(
    ("notation", "batch_norm", "message"),
    [
        (
            "3-4",
            True,
            r"SPIDE: the connection into population 1 has batch norm, .* allowed: network\.batch_norm = false",
        ),
        (
            "3C3-4C3-P2-5",
            False,
            r"SPIDE: the pool P2 is merged into the connection into population 2; allowed: .*network\.pooling",
        ),
    ],
)
def test_model_that_spikes_cannot_run_through_backwards_is_refused(
    notation: str, batch_norm: bool, message: str, way: str
) -> None:
    model = FeedbackSNN(NetworkConfig(notation, batch_norm=batch_norm, dropout=0.0), (1, 4, 4))
    x = torch.rand(2, 1, 4, 4)
    training = TrainingConfig(method="spide")
    asked = {
        "spide_rates": lambda: spide_rates(model, x, time_steps=3, settings=SETTINGS),
        "rates_with_gradient": lambda: rates_with_gradient(model, x, training=training, time_steps=3),
    }
    with pytest.raises(ConfigError, match=message):
        asked[way]()


def test_settings_of_a_configuration_reach_the_second_phase() -> None:
    """Twice the steps and twice the scale, as the counts show: a fixed drive makes more spikes of either."""
    model = FeedbackSNN(NetworkConfig("6", batch_norm=False, dropout=0.0), (4,)).double()
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def told(back: int, scale: float, processes: int = 1) -> torch.Tensor:
        training = TrainingConfig(method="spide", time_steps_back=back, loss_scale=scale)
        result = rates_with_gradient(model, x, training=training, time_steps=4, processes=processes)
        result.rates.backward(torch.full_like(result.rates, 0.01))
        return result.passes[0].rates[0]

    # A drive of 0.3: a spike every three steps and a third, the first at the second; 3 in 10 steps, 6 in 20.
    assert torch.equal(told(10, 30.0), torch.full((5, 6), 0.3, dtype=torch.float64))
    assert torch.equal(told(20, 30.0), torch.full((5, 6), 0.3, dtype=torch.float64))
    assert torch.equal(told(5, 60.0), torch.full((5, 6), 0.6, dtype=torch.float64))
    assert torch.equal(told(10, 60.0, processes=2), torch.full((5, 6), 0.3, dtype=torch.float64))
