"""A user's own data through every command, without the package being touched: trained, exported, run, verified."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fsnn_lava as fsnn
from fsnn_lava.cli import evaluate, export, run, train, verify
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import ConfigError, DatasetError
from fsnn_lava.hardware import load_network
from fsnn_lava.training import BEST, load_checkpoint
from trained import digits

FEW = ["--training.epochs", "2", "--training.milestones", "--network.notation", "30 (F30)", "--network.time-steps", "6"]


def as_npz(path: Path, *, names: bool = False) -> Path:
    data = digits()
    labels = {part: samples.labels for part, samples in (("train", data.train), ("test", data.test))}
    if names:
        labels = {part: np.array([f"digit {y}" for y in ys]) for part, ys in labels.items()}
    images = {f"x_{part}": samples.codes[:, 0] for part, samples in (("train", data.train), ("test", data.test))}
    np.savez(path, **images, **{f"y_{part}": ys for part, ys in labels.items()})
    return path


def as_images(folder: Path) -> Path:
    for number, (codes, label) in enumerate(zip(digits().train.codes[:200], digits().train.labels[:200], strict=True)):
        place = folder / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(codes[0] * 15).save(place / f"{number}.png")
    return folder


def test_arrays_are_trained_exported_run_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    as_npz(tmp_path / "mine.npz", names=True)
    assert train.main(["--dataset", "mine.npz", *FEW]) == 0
    config = load_checkpoint(tmp_path / "runs" / "mine" / BEST).config
    assert config.dataset == str(tmp_path / "mine.npz")
    assert len(config.data.sha256) == 64
    monkeypatch.chdir(tmp_path / "runs")  # the data is found from anywhere
    where = ["--runs", str(tmp_path / "runs")]
    assert evaluate.main(where) == 0
    assert export.main(where) == 0
    assert run.main([*where, "--backend", "simulator"]) == 0
    assert verify.main([*where, "--backends", "torch", "simulator", "--samples", "20"]) == 0
    capsys.readouterr()

    np.save(tmp_path / "two.npy", digits().test.codes[:2])
    assert run.main([*where, "--backend", "simulator", "--input", str(tmp_path / "two.npy"), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    network = load_network(tmp_path / "runs" / "mine" / "network-integer.h5")
    found = fsnn.run(network, digits().test.codes[:2], backend="simulator", record=True)
    for i, answer in enumerate(answers):
        assert answer["input"] == f"{tmp_path / 'two.npy'}[{i}]"
        assert answer["class"] == f"digit {found.predictions[i]}"
        shares = np.exp(found.logits[i]) / np.exp(found.logits[i]).sum()
        assert list(answer["probabilities"].values()) == pytest.approx(shares.tolist())
        rate = found.spike_counts["population1"][i].mean() / 6
        assert answer["firing"] == {"population1": pytest.approx(rate)}
        said = [
            int(
                (
                    network.readout.weight @ found.spikes["population1"][:t, i].mean(axis=0) + network.readout.bias
                ).argmax()
            )
            for t in range(1, 7)
        ]
        decided = next(t for t in range(1, 7) if all(s == said[-1] for s in said[t - 1 :]))
        assert answer["decided_in_step"] == decided

    # Moved: found among the datasets, or where --dataset says; changed: refused.
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(DatasetError, match=r"found nothing at .*mine.npz; say where it is with --dataset PATH"):
        evaluate.main(where)
    assert evaluate.main([*where, "--dataset", str(tmp_path / "moved.npz")]) == 0
    as_npz(tmp_path / "moved.npz")
    with pytest.raises(DatasetError, match=r"the network was trained on the classes|found content with the hash"):
        verify.main([*where, "--dataset", str(tmp_path / "moved.npz"), "--backends", "torch", "simulator"])


def wide(path: Path, *, count: int) -> Path:
    """More numbers an input than samples that an export calibrates on, as in images of a usual size."""
    rng, y = np.random.default_rng(0), np.arange(count) % 4
    x = rng.random((4, 600))[y] + 0.4 * rng.standard_normal((count, 600))
    np.savez(path, x=x, y=y)
    return path


@pytest.mark.parametrize("count", [200, 1000])
def test_an_honest_export_of_wide_inputs_raises_no_alarm(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding is far better on the calibration samples than on others, so rates are expected as on others."""
    monkeypatch.chdir(tmp_path)
    wide(tmp_path / "wide.npz", count=count)
    assert train.main(["--dataset", "wide.npz", *FEW, "--network.time-steps", "30"]) == 0
    assert export.main([]) == 0
    assert verify.main(["--backends", "torch", "simulator"]) == 0
    trained, data = load_checkpoint(tmp_path / "runs" / "wide" / BEST), load_dataset("wide.npz")
    network = load_network(tmp_path / "runs" / "wide" / "network-integer.h5")
    report = fsnn.verify(trained, network, data.test, backends=["torch", "simulator"], calibration=data.train)
    assert report.agrees, report.findings()


def test_images_are_trained_exported_and_one_is_classified_on_lava(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSNN_CACHE", str(tmp_path / "cache"))
    as_images(tmp_path / "pictures")
    assert train.main(["--dataset", "pictures", "--data.height", "6", "--data.width", "6", *FEW]) == 0
    assert export.main([]) == 0
    picture = str(next((tmp_path / "pictures" / "class 3").iterdir()))
    for backend in ("simulator", "simulator-float"):
        capsys.readouterr()
        assert run.main(["--backend", backend, "--input", picture]) == 0
        assert "class" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--json: found without --input"):
        run.main(["--json"])
    with pytest.raises(ConfigError, match="--input: found with --samples or --record"):
        run.main(["--backend", "simulator", "--input", picture, "--samples", "3"])


@pytest.mark.lava
def test_lava_gives_the_simulators_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(digits().test.codes[0, 0] * 15).save(tmp_path / "one.png")
    found: list[Any] = []
    for backend in ("simulator", "lava-fixed"):
        assert run.main(["--zoo", "digits", "--backend", backend, "--input", "one.png", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


def test_arrays_in_python_become_a_file_that_commands_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(60, 12))
    y = (x[:, 0] > 0).astype(int)
    data = fsnn.Dataset.from_arrays(x[:40], y[:40], x[40:], y[40:])
    data.save(tmp_path / "mine.npz")
    fsnn.train(data, network="10 (F10)", epochs=1, folder=tmp_path / "runs" / "mine")
    with pytest.raises(DatasetError, match='no dataset "mine"'):
        evaluate.main([])
    assert evaluate.main(["--dataset", "mine.npz"]) == 0
