"""Settings: what files say, what is refused, what the command line overrides."""

import importlib.metadata
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fsnn_lava.config import DeployConfig, NetworkConfig, TrainConfig, TrainingConfig, config_from_dict, config_to_dict
from fsnn_lava.config.registry import Registry
from fsnn_lava.config.settings import read_config
from fsnn_lava.errors import ConfigError, SpecError, UnsupportedError


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, "")) == TrainConfig(name="settings")


def test_file_sets_what_it_names(tmp_path: Path) -> None:
    text = """
        name = "mine"
        [network]
        notation = "64C5s (F64C5)"
        leak = 0.95
        v_threshold = 1
        batch_norm = false
        [training]
        milestones = [2, 4]
        adjoint_solver = "broyden"
    """
    config = read_config(written(tmp_path, text))
    assert config == TrainConfig(
        name="mine",
        network=NetworkConfig(notation="64C5s (F64C5)", leak=0.95, v_threshold=1.0, batch_norm=False),
        training=TrainingConfig(milestones=(2, 4), adjoint_solver="broyden"),
    )
    assert type(config.network.v_threshold) is float, "a whole number may stand where a float is due"


def test_round_trip_through_json() -> None:
    config = TrainConfig(name="a-b.c", training=TrainingConfig(milestones=(1, 5, 9), learning_rate=0.1))
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"datasett": "digits"},
        r'unknown key "datasett" \(did you mean "dataset"\?\); allowed: data, dataset, name, network',
    ),
    (
        {"network": {"leek": 0.9}},
        r'unknown key "network\.leek" \(did you mean "network\.leak"\?\); allowed: batch_norm',
    ),
    ({"training": {"xyzzy": 1}}, r'unknown key "training\.xyzzy"; allowed: adjoint, adjoint_max_steps'),
    ({"network": 3}, r'key "network": found 3; expected a table \[network\]'),
    ({"dataset": {"name": "digits"}}, r'key "dataset": found \{.*\} \(dict\); expected text'),
    ({"network": {"leak": "0.9"}}, r"key \"network\.leak\": found '0\.9' \(str\); expected float"),
    ({"training": {"epochs": 2.0}}, r'key "training\.epochs": found 2\.0 \(float\); expected int'),
    ({"training": {"epochs": True}}, r'key "training\.epochs": found True \(bool\); expected int'),
    ({"network": {"leak": True}}, r'key "network\.leak": found True \(bool\); expected float'),
    ({"network": {"batch_norm": 1}}, r'key "network\.batch_norm": found 1 \(int\); expected bool'),
    ({"training": {"milestones": 30}}, r'key "training\.milestones": found 30; expected a list of whole numbers'),
    ({"training": {"milestones": [1.5]}}, r'key "training\.milestones": found \[1\.5\]; expected a list of whole'),
    (
        {"training": {"adjoint_solver": "newton"}},
        r"key \"training\.adjoint_solver\": found 'newton'; allowed: 'fixed_point', 'anderson', 'broyden'",
    ),
    ({"training": {"method": "rtrl"}}, r"key \"training\.method\": found 'rtrl'; allowed: 'ide', 'spide', 'bptt'"),
    ({"training": {"surrogate": "step"}}, r"\"training\.surrogate\": found 'step'; allowed: 'rectangular', 'arctan'"),
    ({"training": {"arithmetic": "int"}}, r"key \"training\.arithmetic\": found 'int'; allowed: 'float', 'integer'"),
    ({"training": {"weight_bits": 9}}, r'key "training\.weight_bits": found 9; allowed: 2, 3, 4, 5, 6, 7, 8'),
    ({"training": {"symmetric": 1}}, r'key "training\.symmetric": found 1 \(int\); expected bool'),
    (
        {"training": {"time_steps_schedule": 4}},
        r'key "training\.time_steps_schedule": found 4; expected a list of whole',
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_key_or_type_is_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(values)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name: found ''; allowed: letters, digits"),
    ({"name": "../up"}, r"name: found '\.\./up'; allowed: letters, digits"),
    ({"network": {"v_threshold": 0.0}}, r"network\.v_threshold: found 0\.0; allowed: a finite number > 0"),
    ({"network": {"v_threshold": float("nan")}}, r"network\.v_threshold: found nan; allowed: a finite number > 0"),
    ({"network": {"reset_amount": -1.0}}, r"network\.reset_amount: found -1\.0; allowed: a finite number > 0"),
    ({"network": {"leak": 0.0}}, r"network\.leak: found 0\.0; allowed: 0 < leak <= 1"),
    ({"network": {"leak": 1.01}}, r"network\.leak: found 1\.01; allowed: 0 < leak <= 1"),
    ({"network": {"time_steps": 0}}, r"network\.time_steps: found 0; allowed: at least 1"),
    ({"network": {"dropout": 1.0}}, r"network\.dropout: found 1\.0; allowed: 0 <= dropout < 1"),
    ({"network": {"spectral_norm_bound": float("inf")}}, r"network\.spectral_norm_bound: found inf; allowed: a finite"),
    ({"training": {"epochs": 0}}, r"training\.epochs: found 0; allowed: at least 1"),
    ({"training": {"adjoint_max_steps": 0}}, r"training\.adjoint_max_steps: found 0; allowed: at least 1"),
    ({"training": {"learning_rate": 0.0}}, r"training\.learning_rate: found 0\.0; allowed: a finite number > 0"),
    ({"training": {"adjoint_tolerance": -1.0}}, r"training\.adjoint_tolerance: found -1\.0; allowed: a finite"),
    ({"training": {"surrogate_width": 0.0}}, r"training\.surrogate_width: found 0\.0; allowed: a finite number > 0"),
    ({"training": {"momentum": 1.0}}, r"training\.momentum: found 1\.0; allowed: 0 <= momentum < 1"),
    ({"training": {"weight_decay": float("inf")}}, r"training\.weight_decay: found inf; allowed: a finite number >= 0"),
    ({"training": {"seed": -1}}, r"training\.seed: found -1; allowed: 0 \.\. 4294967295"),
    ({"training": {"seed": 2**32}}, r"training\.seed: found 4294967296; allowed: 0 \.\. 4294967295"),
    ({"training": {"device": "gpu"}}, r"training\.device: found 'gpu'; allowed: cpu, cuda or cuda:N"),
    ({"training": {"device": "cuda:"}}, r"training\.device: found 'cuda:'; allowed: cpu, cuda or cuda:N"),
    ({"training": {"precision": "tf32"}}, r"training\.precision: found 'tf32'; allowed: float32 or bf16 on a CPU"),
    ({"training": {"compile": True}}, r"training\.compile: found True; allowed: false on a CPU"),
    ({"train_samples": -1}, r"train_samples: found -1; allowed: at least 0 \(0: all\)"),
    ({"test_samples": -5}, r"test_samples: found -5; allowed: at least 0 \(0: all\)"),
    ({"training": {"milestones": [30, 20]}}, r"training\.milestones: found \(30, 20\); allowed: epochs > 0 in rising"),
    ({"training": {"milestones": [0]}}, r"training\.milestones: found \(0,\); allowed: epochs > 0 in rising order"),
    ({"training": {"time_steps_back": 0}}, r"training\.time_steps_back: found 0; allowed: at least 1"),
    ({"training": {"loss_scale": 0.0}}, r"training\.loss_scale: found 0\.0; allowed: a finite number > 0"),
    ({"training": {"loss_scale": -100.0}}, r"training\.loss_scale: found -100\.0; allowed: a finite number > 0"),
    (
        {"network": {"initial_transposed_scale": 0.0}},
        r"network\.initial_transposed_scale: found 0\.0; allowed: a finite",
    ),
    (
        {"training": {"method": "spide"}},
        r"network\.batch_norm: found True; allowed: false with training\.method = \"spide\": statistics of a batch",
    ),
    (
        {"network": {"notation": "15C5-P2-300", "batch_norm": False}, "training": {"method": "spide"}},
        r"network\.pooling: found 'merged'; allowed: \"spiking\" with training\.method = \"spide\" and a pool",
    ),
    (
        {"network": {"notation": "3C3-P2", "pooling": "spiking", "dropout_on": "last"}},
        r"network\.dropout_on: found 'last'; allowed: \"all\" where the network ends in a pool",
    ),
    (
        {"network": {"batch_norm": False}, "training": {"method": "spide", "precision": "bf16"}},
        r"training\.precision: found 'bf16'; allowed: float32 or tf32 with training\.method = \"spide\"",
    ),
    ({"training": {"batch_size": 1}}, r"training\.batch_size: found 1; allowed: at least 2 with network\.batch_norm"),
    (
        {"training": {"arithmetic": "integer", "method": "bptt"}},
        r'training\.method: found \'bptt\'; allowed: ide or spide with training\.arithmetic = "integer"',
    ),
    (
        {"training": {"arithmetic": "integer", "device": "cuda"}},
        r'training\.device: found \'cuda\'; allowed: cpu with training\.arithmetic = "integer"',
    ),
    (
        {"training": {"weight_bits": 4}},
        r'training\.weight_bits: found 4; allowed: 8 with training\.arithmetic = "float"',
    ),
    (
        {"training": {"exponents": "input"}},
        r'training\.exponents: found \'input\'; allowed: all with training\.arithmetic = "float"',
    ),
    (
        {"training": {"symmetric": True}},
        r'training\.symmetric: found True; allowed: False with training\.arithmetic = "float"',
    ),
    (
        {"training": {"time_steps_schedule": [4, 0]}},
        r"training\.time_steps_schedule: found \(4, 0\); allowed: numbers of at least 1",
    ),
]


@pytest.mark.parametrize(("values", "message"), CONTRADICTIONS)
def test_value_out_of_range_is_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(values)


def test_batches_of_one_need_no_batch_norm() -> None:
    config = TrainConfig(network=NetworkConfig(batch_norm=False), training=TrainingConfig(batch_size=1))
    assert config.training.batch_size == 1


def test_pools_of_spide_spike() -> None:
    network = NetworkConfig(notation="15C5-P2-300", batch_norm=False, pooling="spiking")
    config = TrainConfig(network=network, training=TrainingConfig(method="spide"))
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize("method", ["ide", "spide"])
def test_settings_of_integers_are_kept(method: str) -> None:
    training = TrainingConfig(
        method=method,
        arithmetic="integer",
        weight_bits=2,
        symmetric=True,
        time_steps_schedule=(4, 8, 30),
        time_steps_by="batch",
    )
    config = TrainConfig(network=NetworkConfig(batch_norm=False), training=training)
    written = config_to_dict(config)
    assert written["training"]["time_steps_schedule"] == [4, 8, 30]
    assert config_from_dict(json.loads(json.dumps(written))) == config
    assert config.training.runs_in == "hardware"
    assert config.most_steps == 30


def test_settings_that_change_nothing_are_left_out() -> None:
    """Files of trainings in floats stay as older versions wrote them."""
    new = {"arithmetic", "weight_bits", "symmetric", "exponents", "time_steps_schedule"}
    assert not new & set(config_to_dict(TrainConfig())["training"])
    integer = TrainConfig(training=TrainingConfig(arithmetic="integer"))
    assert new & set(config_to_dict(integer)["training"]) == {"arithmetic"}
    assert config_from_dict(config_to_dict(integer)) == integer
    ternary = TrainConfig(training=TrainingConfig(arithmetic="integer", weight_bits=2, symmetric=True))
    assert new - set(config_to_dict(ternary)["training"]) == {"exponents", "time_steps_schedule"}


@pytest.mark.parametrize(("drawn", "most"), [((), 30), ((4, 8), 30), ((4, 50), 50)])
def test_most_steps_are_those_of_training_or_test(drawn: tuple[int, ...], most: int) -> None:
    training = TrainingConfig(time_steps_schedule=drawn, time_steps_by="batch")
    assert TrainConfig(network=NetworkConfig(time_steps=30), training=training).most_steps == most
    assert (training.runs_in, TrainingConfig(timing="hardware").runs_in) == ("sequential", "hardware")


def test_wrong_notation_is_refused_with_its_position() -> None:
    with pytest.raises(SpecError, match=r'layer 2 of "64C5s-64D3": cannot read "64D3"'):
        TrainConfig(network=NetworkConfig(notation="64C5s-64D3"))


FILES: list[tuple[str, str]] = [
    ("[network", "not TOML: Expected ']'"),
    ("name = ", "not TOML: Invalid value"),
    ("[network]\nleak = 2.0", r"network\.leak: found 2\.0; allowed: 0 < leak <= 1"),
    ('[network]\nnotation = "64D3"', 'cannot read "64D3"'),
    ("[training]\nepoch = 3", r'unknown key "training\.epoch" \(did you mean "training\.epochs"\?\)'),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_refused_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"config .*settings\.toml: .*{message}"):
        read_config(written(tmp_path, text))


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config .*settings\.toml: not TOML"):
        read_config(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config .*none\.toml: cannot be read \(No such file.*\); `fsnn configs`"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_bits": 9}, "weight_bits: found 9; allowed: 2 .. 8"),
        ({"threshold": "third"}, "threshold: found 'third'; allowed: full or half"),
        ({"time_steps": -1}, "time_steps: found -1; allowed: at least 0"),
        ({"calibration_samples": 0}, "calibration_samples: found 0; allowed: at least 1"),
    ],
)
def test_deployment_setting_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeployConfig(**values)


def test_toml_reader_is_the_standard_one_where_there_is_one() -> None:
    assert ("tomllib" in sys.modules) == (sys.version_info >= (3, 11))


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
    with pytest.raises(UnsupportedError, match=r'no shape "squre" \(did you mean "square"\?\); there are: round'):
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
    assert registry.get("oval").__name__ == "Counter"
    assert asked == ["fsnn_lava.test_shapes"]
