"""Devices: what is not there is refused, precision is set and put back; what needs a GPU is marked."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fsnn_lava.config import NetworkConfig, TrainConfig
from fsnn_lava.errors import ConfigError
from fsnn_lava.network.dense_runs.in_floats import DenseSettings
from fsnn_lava.network.devices import check_precision, device_title, open_device, place, prepared, tf32
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.training import BEST, LAST, fit
from fsnn_lava.training.checkpoint import load_checkpoint
from fsnn_lava.training.evaluation import evaluate
from short_training import CONFIG, changed, short_digits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _flags() -> Iterator[None]:
    """No test may leave torch's flags changed."""
    before = flags()
    yield
    assert flags() == before


def flags() -> tuple[bool, bool, bool]:
    return (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)


class FakeCuda:
    """Two GPUs, of different ages, that are not there."""

    titles = ("NVIDIA H200", "Tesla V100")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 2) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: self.titles[torch.device("cuda", which).index])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda which: (9, 0) if which.index == 0 else (7, 0))


def test_cpu_is_always_there() -> None:
    assert open_device("cpu") == CPU
    assert open_device("cpu", local_rank=1, processes=2) == CPU
    assert device_title(CPU)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "mps", "meta", ""])
def test_name_of_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"training\.device: found '{name}'; allowed: cpu, cuda or cuda:N"):
        open_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    FakeCuda(monkeypatch, count=0)
    with pytest.raises(ConfigError, match=rf"found '{name}'; this machine has the cpu alone \(torch .* use --device"):
        open_device(name)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match=r"was built without CUDA; install a build with it, or use --device cpu"):
        open_device(name)
    monkeypatch.setattr(torch.version, "cuda", "12.1")
    with pytest.raises(ConfigError, match=r"finds no NVIDIA GPU with a driver; see nvidia-smi, or use --device cpu"):
        open_device(name)


def test_every_process_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch)
    assert open_device("cuda") == torch.device("cuda", 0)
    assert open_device("cuda:1") == torch.device("cuda", 1)
    assert open_device("cuda", local_rank=1, processes=2) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"found 'cuda:1' with 2 processes; allowed: cuda, which gives each its own"):
        open_device("cuda:1", processes=2)
    message = r"found 'cuda.*' \(number 2 for this process\); this machine has cpu, cuda:0 \(NVIDIA H200\), cuda:1"
    with pytest.raises(ConfigError, match=message):
        open_device("cuda:2")
    with pytest.raises(ConfigError, match=message):
        open_device("cuda", local_rank=2, processes=3)


def test_precision_that_a_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch)
    new, old = torch.device("cuda", 0), torch.device("cuda", 1)
    for precision, device in (("float32", CPU), ("bf16", CPU), ("tf32", new), ("bf16", new), ("float32", old)):
        check_precision(precision, device)
    with pytest.raises(ConfigError, match=r"found 'tf32' on a CPU, which has none; allowed: float32 or bf16"):
        check_precision("tf32", CPU)
    monkeypatch.setattr("fsnn_lava.network.devices.device_title", lambda _: "Tesla V100")
    for precision in ("tf32", "bf16"):
        with pytest.raises(ConfigError, match=rf"found '{precision}'; Tesla V100 has no tensor cores for it"):
            check_precision(precision, old)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_both_ways_and_put_back(before: bool, allowed: bool) -> None:
    with tf32(before):
        outside = flags()
        with tf32(allowed):
            assert flags()[:2] == (allowed, allowed)
        assert flags() == outside
        with prepared(CPU):
            assert flags()[:2] == (False, False)
        assert flags() == outside


def test_training_leaves_the_flags_as_they_were(tmp_path: Path) -> None:
    """TF32 is allowed in backward passes alone, where the precision says so; the fixture sees what is left."""
    seen: list[tuple[bool, bool]] = []
    backward = torch.Tensor.backward

    def noted(self: torch.Tensor) -> None:
        seen.append(flags()[:2])
        backward(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", noted)
        for precision in ("float32", "bf16"):
            folder = tmp_path / precision
            folder.mkdir()
            fit(changed(epochs=1, precision=precision), short_digits(), folder)
    assert seen == [(False, False)] * 5 + [(True, True)] * 5


def test_bfloat16_changes_gradients_and_hardly_a_spike(tmp_path: Path) -> None:
    """The first iteration's loss is that of weights of 24 bits; then the weights part, a little."""
    histories, losses = [], []
    for precision in ("float32", "bf16"):
        folder = tmp_path / precision
        folder.mkdir()
        first: list[float] = []
        network = {"notation": "8C5 (F8C5)", "v_threshold": 1.0, "reset_amount": 1.0}
        config = changed(epochs=2, warmup_iterations=0, precision=precision, network=network)
        result = fit(config, short_digits(), folder, observer=Noting(first))
        losses.append(first)
        histories.append([metrics["train/loss"] for metrics in result.history])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert losses[0][1:] != losses[1][1:]
    # Ten iterations later the losses differ by a rounding of 1e-3 in the gradients.
    assert_close(histories[0], histories[1], rtol=5e-3, atol=0)


class Noting:
    """An observer that notes the loss after every iteration."""

    def __init__(self, losses: list[float]) -> None:
        self._losses = losses

    def iteration(
        self, *, epoch: int, done: int, total: int, loss: float, figures: Mapping[str, float] | None = None
    ) -> None:
        self._losses.append(loss)

    def epoch(self, *, epoch: int, metrics: object) -> None:
        pass


def test_checkpoint_tells_where_it_was_made(tmp_path: Path) -> None:
    fit(changed(epochs=1), short_digits(), tmp_path)
    metrics = load_checkpoint(tmp_path / BEST).metrics
    assert metrics["device"] == device_title(CPU)
    assert (metrics["processes"], metrics["partial"], metrics["train_samples"]) == (1, False, 150)
    last = load_checkpoint(tmp_path / LAST).metrics
    assert last["seconds_per_epoch"] == last["last_epoch"]["train/seconds"] > 0


def test_place_leaves_a_cpu_network_as_it_is() -> None:
    convolution = nn.Conv2d(3, 4, 3)
    before = convolution.weight.stride()
    place(convolution, CPU)
    assert convolution.weight.stride() == before


def convolutional(epochs: int = 2, **training: object) -> TrainConfig:
    return changed(epochs=epochs, network={"notation": "8C3s-16C3s (F8C3u)"}, **training)


@pytest.fixture
def gpu() -> torch.device:
    return open_device("cuda")


@pytest.mark.gpu
def test_convolutions_have_their_channels_last_on_a_gpu(gpu: torch.device) -> None:
    model = FeedbackSNN(NetworkConfig("8C3s-16C3s (F8C3u)", dropout=0.0), (3, 16, 16))
    place(model, gpu)
    for parameter in model.parameters():
        assert parameter.device == gpu
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("notation", ["8C3s-16C3-16C3s (F8C3u)", "40-30 (F40)", "6C3-P2-8C3-20"])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # torch.compile's own
def test_spikes_on_a_gpu_are_those_of_a_cpu(gpu: torch.device, notation: str, compiled: bool, split: bool) -> None:
    """In all but a few: float32 sums in another order, and a potential may lie within that of its threshold."""
    torch.manual_seed(0)
    model = FeedbackSNN(NetworkConfig(notation, dropout=0.0), (3, 16, 16)).eval()
    for name, parameter in model.named_parameters():
        if "batch_norm" in name or "bias" in name:
            parameter.data.uniform_(0.2, 0.8)
    x = torch.randn(20, 3, 16, 16)
    bound = model.bind(20)
    expected = bound.simulate(bound.drive(x, time_steps=15), time_steps=15, record=True).spikes
    place(model, gpu)
    model.dense = DenseSettings(compiled=compiled, split=split)
    with prepared(gpu):
        bound = model.bind(20)
        drive = bound.drive(x.to(gpu), time_steps=15)
        found = bound.simulate(drive, time_steps=15, record=True).spikes
    for spikes, other in zip(found, expected, strict=True):
        assert float((spikes.cpu() != other).double().mean()) < 1e-3
        assert bool(spikes.any())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_training_on_a_gpu_has_the_curve_of_a_cpu(tmp_path: Path, precision: str) -> None:
    """But for its dropout masks, which are drawn there: so without dropout."""
    results = {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        config = convolutional(device=device, precision=precision if device == "cuda" else "float32")
        config = replace(config, network=replace(config.network, dropout=0.0))
        results[device] = fit(config, short_digits(), folder).history
    for ours, theirs in zip(results["cuda"], results["cpu"], strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=2e-2)


@pytest.mark.gpu
def test_run_goes_on_on_another_device(tmp_path: Path) -> None:
    fit(convolutional(device="cuda", epochs=1), short_digits(), tmp_path)
    assert "NVIDIA" in load_checkpoint(tmp_path / LAST).metrics["device"]
    assert fit(convolutional(device="cpu"), short_digits(), tmp_path, resume=True).finished
    assert fit(convolutional(device="cuda", epochs=3), short_digits(), tmp_path, resume=True).finished


@pytest.mark.gpu
def test_evaluation_on_a_gpu_has_the_figures_of_a_cpu(gpu: torch.device, tmp_path: Path) -> None:
    fit(CONFIG, short_digits(), tmp_path)
    trained, digits = load_checkpoint(tmp_path / BEST), short_digits()
    model = trained.model()
    expected = evaluate(model, digits.test, trained.coding, time_steps=6)
    place(model, gpu)
    with prepared(gpu):
        found = evaluate(model, digits.test, trained.coding, time_steps=6)
    assert found.accuracy == pytest.approx(expected.accuracy, abs=1 / 60 + 1e-9)
    assert found.loss == pytest.approx(expected.loss, rel=1e-2)
