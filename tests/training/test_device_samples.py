"""Batches on a device: the same values as decoding in NumPy, and augmentation against a loop over images."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fsnn_lava.datasets import Augmentation, InputCoding, Samples, pack, time_first
from fsnn_lava.errors import DatasetError, InputError
from fsnn_lava.training.device_samples import DeviceSamples, augmented, channels_last

Array = npt.NDArray[Any]

RGB = InputCoding("graded", 255, 1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
EVENTS = InputCoding("event", 1, 1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
COUNT = 23


def _images(shape: tuple[int, ...] = (3, 8, 6), maximum: int = 255) -> Samples:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, maximum + 1, (COUNT, *shape)).astype(np.uint8)
    return Samples(codes, generator.integers(0, 4, COUNT))


def _events(frame: tuple[int, ...] = (2, 5, 4)) -> Samples:
    codes = _images((6, *frame), maximum=1)
    return pack(codes.codes, codes.labels)


CASES = {
    "colour": (_images(), RGB),
    "grey": (_images((1, 8, 8)), InputCoding("graded", 255, 1 / 255, (0.1307,), (0.3081,))),
    "few levels": (_images((1, 4, 4), 16), InputCoding("graded", 16, 1 / 16, (0.3,), (0.4,))),
    "events": (_events(), EVENTS),
    "events, not whole bytes": (_events((2, 3, 3)), EVENTS),
    "events, not packed": (Samples(_events().codes, _events().labels), EVENTS),
    "events, normalised": (_events(), InputCoding("event", 1, 1.0, mean=(0.1, 0.0), std=(0.3, 0.7))),
}


@pytest.mark.parametrize(("samples", "coding"), CASES.values(), ids=CASES)
def test_batch_equals_decoding_bit_for_bit(samples: Samples, coding: InputCoding) -> None:
    kept = DeviceSamples(samples, coding, device="cpu")
    indices = torch.tensor([7, 0, 22, 7, 3])
    x, labels = kept.batch(indices)
    few = samples.select(indices.numpy())
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), coding.decode(time_first(few.codes)))
    assert x.is_contiguous()
    assert labels.dtype == torch.int64
    assert np.array_equal(labels.numpy(), few.labels)


@pytest.mark.parametrize(("samples", "coding"), CASES.values(), ids=CASES)
def test_ordered_batches_hold_every_sample_once(samples: Samples, coding: InputCoding) -> None:
    kept = DeviceSamples(samples, coding, device="cpu", augmentation=None)
    batches = list(kept.ordered(10))
    assert [len(labels) for _, labels in batches] == [10, 10, 3]
    axis = 1 if coding.kind == "event" else 0
    x = torch.cat([x for x, _ in batches], dim=axis)
    assert np.array_equal(x.numpy(), coding.decode(time_first(samples.codes)))
    assert np.array_equal(torch.cat([labels for _, labels in batches]).numpy(), samples.labels)
    assert len(kept) == COUNT


def test_batches_lie_in_memory_of_torch() -> None:
    kept = DeviceSamples(_images(), RGB, device="cpu")
    addresses = {kept.batch(torch.arange(n))[0].data_ptr() % 64 for n in range(1, 20)}
    assert addresses == {0}


def test_codes_that_cannot_be_written_to_are_taken() -> None:
    samples = _images()
    samples.stored.flags.writeable = False
    x, _ = DeviceSamples(samples, RGB, device="cpu").batch(torch.arange(3))
    assert np.array_equal(x.numpy(), RGB.decode(samples.codes[:3]))


def _augmented_in_a_loop(codes: Array, augmentation: Augmentation, generator: torch.Generator) -> Array:
    """The same draws, applied to one image after the other."""
    pad = augmentation.pad
    top, left = torch.randint(0, 2 * pad + 1, (2, len(codes)), generator=generator).tolist()
    mirrored = torch.randint(0, 2 if augmentation.flip else 1, (1, len(codes)), generator=generator)[0].tolist()
    height, width = codes.shape[2:]
    done = []
    for image, row, column, mirror in zip(codes, top, left, mirrored, strict=True):
        black = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        cut = black[:, row : row + height, column : column + width]
        done.append(cut[:, :, ::-1] if mirror else cut)
    return np.stack(done)


@pytest.mark.parametrize("augmentation", [Augmentation(4, True), Augmentation(2, False), Augmentation(0, True)])
def test_augmentation_equals_a_loop_over_images(augmentation: Augmentation) -> None:
    samples = _images()
    kept = DeviceSamples(samples, RGB, device="cpu", augmentation=augmentation)
    indices = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    generator, again = (torch.Generator().manual_seed(5) for _ in range(2))
    for _ in range(3):
        x, labels = kept.batch(indices, generator=generator)
        expected = _augmented_in_a_loop(samples.codes[indices.numpy()], augmentation, again)
        # black is code 0 before the normalisation, so a padded pixel is -mean / std
        assert np.array_equal(x.numpy(), RGB.decode(expected))
        assert np.array_equal(labels.numpy(), samples.labels[indices.numpy()])
    assert torch.equal(generator.get_state(), again.get_state())


def test_every_place_and_mirroring_comes_up() -> None:
    codes = torch.zeros(4000, 1, 3, 3, dtype=torch.uint8)
    codes[:, 0, 1, 0] = 1  # one pixel left of the centre shows where an image was cut and whether it was mirrored
    found = augmented(codes, Augmentation(1, True), generator=torch.Generator().manual_seed(0))
    places = found.flatten(1).argmax(1)[found.flatten(1).amax(1) > 0]
    # cut at one of 3 rows and, unmirrored, columns 1, 0 or outside; mirrored, columns 1, 2 or outside
    counts = torch.bincount(places, minlength=9).reshape(3, 3)
    expected = 4000 / 3 * torch.tensor([1 / 6, 1 / 3, 1 / 6])
    # five standard deviations of the largest count, sqrt(4000 * 1/9 * 8/9)
    assert ((counts - expected).abs() < 5 * 20).all(), counts


def test_without_generator_or_augmentation_images_stay_as_they_are() -> None:
    samples, indices = _images(), torch.arange(5)
    plain = DeviceSamples(samples, RGB, device="cpu").batch(indices)[0]
    varied = DeviceSamples(samples, RGB, device="cpu", augmentation=Augmentation(4, True))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(varied.batch(indices)[0], plain)
    assert torch.equal(next(varied.ordered(5))[0], plain)
    assert torch.equal(DeviceSamples(samples, RGB, device="cpu").batch(indices, generator=generator)[0], plain)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (7, 5, 2, 4, 6)])
def test_channels_last_keeps_values_and_orders_every_frame(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = channels_last(x)
    assert torch.equal(found, x)
    assert found.stride()[-3:] == (1, shape[-1] * shape[-3], shape[-3])
    assert found.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize(("samples", "coding"), CASES.values(), ids=CASES)
def test_gpu_makes_the_same_batches(samples: Samples, coding: InputCoding) -> None:
    augmentation = None if coding.kind == "event" else Augmentation(4, True)
    indices = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    x, labels = DeviceSamples(samples, coding, device="cpu", augmentation=augmentation).batch(
        indices, generator=torch.Generator().manual_seed(5)
    )
    on_gpu = DeviceSamples(samples, coding, device="cuda", augmentation=augmentation)
    found, found_labels = on_gpu.batch(indices, generator=torch.Generator().manual_seed(5))
    assert found.is_cuda
    assert torch.equal(found.cpu(), x)
    assert torch.equal(found_labels.cpu(), labels)
    assert found.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("samples", "coding", "message"),
    [
        (_images((1, 4, 4), 255), CASES["few levels"][1], "found input code 255; allowed: 0 .. 16."),
        (Samples(_events().codes * 2, _events().labels), EVENTS, "found input code 2; allowed: 0 .. 1."),
        (_images((1, 4, 4)), RGB, "samples of shape (1, 4, 4); expected (3, H, W) for graded input."),
        (_images((4, 4)), RGB, "samples of shape (4, 4); expected (3, H, W) for graded input."),
        (_events((1, 5, 4)), EVENTS, "samples of shape (6, 1, 5, 4); expected (T, 2, H, W) for event input."),
        (_images((2, 4, 4), 1), EVENTS, "samples of shape (2, 4, 4); expected (T, 2, H, W) for event input."),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: Samples, coding: InputCoding, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        DeviceSamples(samples, coding, device="cpu")


def test_event_frames_are_not_augmented() -> None:
    with pytest.raises(DatasetError, match="augmentation is for images; event frames cannot be augmented"):
        DeviceSamples(_events(), EVENTS, device="cpu", augmentation=Augmentation(4, True))
