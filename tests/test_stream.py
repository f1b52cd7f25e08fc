"""The streaming loop: equal to offline for any chunks, aligned or lagging, and bounded."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sepcli.errors import SepcliError
from sepcli.inference.blockwise import at_rate
from sepcli.inference.separate import Separator
from sepcli.inference.stream import Sources, Stream, separate
from sepcli.inference.streamcheck import measure
from sepcli.models import build
from sepcli.nn.runner import TorchRunner
from tests.models import TINY, complete, randomise


def tiny(index=0, **changes):
    """The runner of a small random model; of the same weights whenever it is called."""
    torch.manual_seed(0)
    name, settings = TINY[index]
    return TorchRunner(complete(randomise(build(name, **settings, **changes))))


def noise(channels, frames, seed=0):
    return np.random.default_rng(seed).standard_normal((channels, frames)).astype(np.float32)


def offline(runner, audio, target=0):
    """The target of the whole audio (C, T), in one piece."""
    with torch.no_grad():
        return runner.model(torch.from_numpy(audio)[:, None])[:, target, 0].numpy()


def push_all(stream, audio, sizes):
    """Push audio in pieces of the sizes, over and over, and finish."""
    parts, at = [], 0
    while at < audio.shape[1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(stream.push(audio[:, at : at + size]))
        at += size
    return np.concatenate([*parts, stream.finish()], 1)


class Echo:
    """A runner whose second source is the input after 6 samples, and whose first is silent."""

    engine, consistent = "echo", False
    sample_rate, sources, channels, hop, delay = 1000, ("nothing", "all"), 1, 4, 6

    def initial_state(self, batch=1):
        return np.zeros((batch, self.delay), np.float32)

    def step(self, x, state):
        heard = np.concatenate([state, x[:, 0]], 1)
        n = x.shape[2]
        y = np.stack([0 * heard[:, :n], heard[:, :n]], 1)
        return y[:, :, None], heard[:, n:]


@pytest.mark.parametrize("index", range(len(TINY)))
@pytest.mark.parametrize(("length", "chunk_ms"), [(1, 10), (1999, 0), (3200, 25)])
def test_every_model_streams_to_what_it_gives_offline(index, length, chunk_ms):
    runner, audio = tiny(index), noise(2, length)
    sizes = np.random.default_rng(length).integers(1, 700, 50)
    for target, name in enumerate(runner.sources):
        streamed = push_all(Stream(runner, 2, target=name, chunk_ms=chunk_ms), audio, sizes)
        expected = offline(runner, audio, target)
        np.testing.assert_allclose(streamed, expected, rtol=0, atol=1e-5)


def test_the_same_audio_gives_the_same_bits_however_it_arrives():
    runner, audio = tiny(3), noise(1, 4001)
    whole = push_all(Stream(runner), audio, [4001])
    for sizes in [(1,), (160,), (7, 900)]:
        np.testing.assert_array_equal(push_all(Stream(runner), audio, sizes), whole)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 6, 7, 100])
@pytest.mark.parametrize("chunk_ms", [0, 8, 10, 1000])
def test_out_come_as_many_samples_as_went_in_aligned_or_late(length, chunk_ms):
    audio = noise(3, length)
    settings = {"target": "all", "chunk_ms": chunk_ms}
    aligned = push_all(Stream(Echo(), 3, **settings), audio, (5, 2, 9))
    np.testing.assert_array_equal(aligned, audio)
    late = push_all(Stream(Echo(), 3, compensate_delay=False, **settings), audio, (5, 2, 9))
    np.testing.assert_array_equal(late, np.pad(audio, ((0, 0), (6, 0)))[:, :length])


def test_a_late_stream_answers_every_chunk_with_as_much():
    stream = Stream(Echo(), chunk_ms=8, compensate_delay=False)
    assert [stream.push(noise(1, n)).shape[1] for n in (8, 7, 1, 24, 0)] == [8, 0, 8, 24, 0]


def test_an_aligned_stream_is_late_by_the_delay_and_no_more():
    stream = Stream(Echo(), chunk_ms=8)
    assert [stream.push(noise(1, 8)).shape[1] for _ in range(3)] == [2, 8, 8]
    assert stream.finish().shape[1] == 6


@pytest.mark.parametrize(("chunk_ms", "chunk"), [(0, 4), (3.9, 4), (4, 4), (11.9, 8), (12, 12)])
def test_a_chunk_is_rounded_down_to_whole_hops_but_for_the_first(chunk_ms, chunk):
    assert Stream(Echo(), chunk_ms=chunk_ms).chunk == chunk


@pytest.mark.parametrize("limit", [0.0, 6.0, 20.0, 100.0])
def test_the_limit_of_attenuation_lets_so_much_of_the_aligned_mixture_through(limit):
    audio = noise(2, 333)
    silent = push_all(Stream(Echo(), 2, target="nothing", atten_lim_db=limit), audio, (50,))
    np.testing.assert_allclose(silent, 10 ** (-limit / 20) * audio, rtol=1e-5, atol=1e-7)
    passed = push_all(Stream(Echo(), 2, target="all", atten_lim_db=limit), audio, (50,))
    np.testing.assert_allclose(passed, audio, rtol=1e-5, atol=1e-7)


def test_the_limit_of_attenuation_is_what_the_formula_says_of_a_model():
    runner, audio = tiny(0), noise(1, 1500)
    limited = push_all(Stream(runner, atten_lim_db=12), audio, (160,))
    a = 10 ** (-12 / 20)
    expected = a * audio + (1 - a) * offline(runner, audio)
    np.testing.assert_allclose(limited, expected, rtol=0, atol=1e-5)


def test_what_the_estimates_lack_of_the_mixture_is_shared_out_if_the_model_was_trained_so():
    runner, audio = tiny(0), noise(2, 1500)
    runner.consistent = True
    parts = [push_all(Stream(runner, 2, target=t), audio, (99,)) for t in runner.sources]
    np.testing.assert_allclose(sum(parts), audio, rtol=0, atol=1e-5)
    plain = [offline(runner, audio, target) for target in range(2)]
    np.testing.assert_allclose(parts[0], plain[0] + (audio - sum(plain)) / 2, rtol=0, atol=1e-5)


class CountingEcho(Echo):
    """An echo that keeps how many samples each of its steps had."""

    def __init__(self):
        self.steps = []

    def step(self, x, state):
        self.steps.append(x.shape[2])
        return super().step(x, state)


@given(st.lists(st.integers(0, 30), max_size=5), st.sampled_from([0, 8]))
def test_all_of_a_signal_in_any_blocks_gives_as_much_aligned(sizes, chunk):
    audio = noise(2, sum(sizes))
    blocks = np.split(audio, np.cumsum(sizes)[:-1], 1) if sizes else []
    sources = Sources(Echo(), 2, chunk=chunk, kept=[1])
    parts = [audio[None, :, :0], *sources.all_of(blocks)]
    np.testing.assert_array_equal(np.concatenate(parts, -1)[0], audio)


@pytest.mark.parametrize("length", [1, 5, 8, 800])
def test_a_signal_in_one_block_is_one_step(length):
    counting = CountingEcho()
    separate(counting, noise(1, length))
    assert len(counting.steps) == 1


@pytest.mark.parametrize("rate", [1000, 800, 1600])
def test_a_signal_of_any_rate_in_one_block_is_one_step(rate):
    counting, audio = CountingEcho(), noise(2, rate)

    def run(blocks, channels):
        return Sources(counting, channels, kept=[1]).all_of(blocks)

    run_at = run([audio], 2) if rate == 1000 else at_rate(1000, run, [audio], rate, 2)
    assert np.concatenate(list(run_at), -1).shape == (1, 2, rate)
    assert len(counting.steps) == 1


def test_after_a_reset_the_next_chunk_is_the_first():
    runner, before, after = tiny(3), noise(1, 960, 1), noise(1, 1600, 2)
    settings = {"chunk_ms": 0, "compensate_delay": False}
    stream = Stream(runner, **settings)
    first = stream.push(before)
    stream.reset()
    second = np.concatenate([stream.push(after), stream.finish()], 1)
    fresh = push_all(Stream(runner, **settings), after, (1600,))
    np.testing.assert_array_equal(first, push_all(Stream(runner, **settings), before, (960,)))
    np.testing.assert_array_equal(second, fresh)


def test_pushing_nothing_gives_nothing():
    stream = Stream(tiny(0), 2)
    assert stream.push(noise(2, 0)).shape == stream.finish().shape == (2, 0)


@pytest.mark.parametrize(("runner", "chunk_ms"), [(Echo(), 10), (tiny(0), 1000)])
def test_memory_does_not_grow_with_the_length(runner, chunk_ms):
    audio = noise(1, runner.sample_rate)
    stream = Stream(runner, chunk_ms=chunk_ms)

    def memory(pushes):
        for _ in range(pushes):
            stream.push(audio)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        assert -memory(10) + memory(50) < 4000  # bytes; a second of audio has 4,000 and 64,000
    finally:
        tracemalloc.stop()


def test_a_separator_gives_a_stream_at_its_own_rate():
    separator = Separator(tiny(0).model)
    audio = noise(2, 1000)
    streamed = push_all(separator.stream(16000, 2), audio, (160,))
    np.testing.assert_allclose(streamed, separator.separate(audio, 16000)["speech"], atol=1e-5)
    with pytest.raises(ValueError, match="runs at 16000 Hz; resample 44100 Hz"):
        separator.stream(44100)


def test_a_source_that_the_model_lacks_is_refused_naming_those_it_has():
    with pytest.raises(SepcliError, match=r"no source 'piano'.*speech, noise"):
        Stream(tiny(0), target="piano")


def test_channels_that_the_model_does_not_take_are_refused():
    runner = Echo()
    runner.channels = 4
    with pytest.raises(SepcliError, match="takes 4 channels but the audio has 3"):
        Stream(runner, 3)


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="0 dB or more"):
        Stream(Echo(), atten_lim_db=-3)


def test_a_model_that_needs_the_whole_signal_is_refused():
    with pytest.raises(SepcliError, match="not causal"):
        TorchRunner(build("conv_tasnet", **TINY[0][1], norm="gln", causal=False))


def test_the_latency_is_a_chunk_and_the_delay():
    record = measure(Echo(), seconds=0.5, chunk_ms=10)
    assert record["latency_ms"] == record["chunk_ms"] + record["delay_ms"] == 8 + 6
    assert record["chunks"] == 500 // 8 - 5
    times = [record[f"{name}_ms"] for name in ("p50", "p95", "p99", "max")]
    assert times == sorted(times)
    assert record["real_time_factor"] > 0


def test_too_little_to_measure_is_refused():
    with pytest.raises(SepcliError, match="too short to measure"):
        measure(Echo(), seconds=0.02)
