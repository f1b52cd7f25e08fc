"""BSS Eval v4 against museval, which is the definition."""

import tracemalloc

import numpy as np
import pytest
from scipy import linalg
from threadpoolctl import threadpool_info, threadpool_limits

from sepcli.metrics.bsseval import NAMES, bss_eval, bss_eval_blocks

RATE = 8000


@pytest.fixture
def museval(museval_metrics):
    """museval's scores of (S, C, T) by name."""

    def score(estimates, references, *, window=RATE, hop=RATE):
        signals = references.transpose(0, 2, 1), estimates.transpose(0, 2, 1)
        *scores, _ = museval_metrics.bss_eval(*signals, window=window, hop=hop)
        return dict(zip(NAMES, scores, strict=True))

    return score


def sources(S=2, C=2, seconds=3.0, *, seed=0):
    """Coloured noises that swell and fade, as (estimates, references) with leakage and noise."""
    rng = np.random.default_rng(seed)
    T = round(seconds * RATE)
    references = rng.standard_normal((S, C, T + 3))
    references = references[..., 3:] + 0.9 * references[..., 2:-1] + 0.5 * references[..., :-3]
    swell = np.sin(np.arange(T) / RATE * rng.uniform(1, 9, (S, 1, 1)))
    references = np.round(2000 * references * swell) / 32768
    delayed = np.roll(references, 5, axis=-1)
    leak = references.sum(axis=0) - references
    noise = rng.standard_normal(references.shape)
    return 0.8 * references + 0.1 * delayed + 0.15 * leak + 0.01 * noise, references


def assert_equal(scores, expected):
    for name in NAMES:
        np.testing.assert_allclose(scores[name], expected[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("S", "C"), [(2, 1), (3, 1), (4, 1), (2, 2)])
def test_scores_are_those_of_museval(museval, S, C):
    signals = sources(S, C, 2.5)
    scores = bss_eval(*signals, window=RATE, hop=RATE)
    assert scores["sdr"].shape == (S, 2)  # the tail of half a second is left out
    assert_equal(scores, museval(*signals))


@pytest.mark.slow
def test_scores_of_four_stereo_sources_are_those_of_museval(museval):
    signals = sources(4, 2)
    assert_equal(bss_eval(*signals, window=RATE, hop=RATE), museval(*signals))


@pytest.mark.parametrize(
    ("window", "hop"),
    [(1000, 1000), (999, 500), (1000, 3700), (16000, 1), (16001, 400), (99999, 7), (100, 2000)],
)
def test_frames_are_cut_as_in_museval(museval, window, hop):
    signals = sources(2, 1, 2.0)
    if hop == 1:  # the length of the window is that of the signal
        assert signals[0].shape[-1] == window
    expected = museval(*signals, window=window, hop=hop)
    assert_equal(bss_eval(*signals, window=window, hop=hop), expected)


def test_a_signal_shorter_than_the_filters_has_scores(museval):
    signals = sources(2, 1, 300 / RATE)
    scores, expected = bss_eval(*signals, window=RATE, hop=RATE), museval(*signals)
    for name in ("sdr", "isr", "sir"):  # filters this long leave nothing over for artifacts
        np.testing.assert_allclose(scores[name], expected[name], rtol=0, atol=1e-3)


def test_a_frame_in_which_anything_is_silent_has_no_scores(museval):
    estimates, references = sources(2, 2, 5.0)
    references[1, :, RATE : 2 * RATE] = 0
    estimates[0, :, 3 * RATE : 4 * RATE] = 0
    estimates[1, 1, 4 * RATE :] = 0  # one channel only: not silent
    scores = bss_eval(estimates, references, window=RATE, hop=RATE)
    assert_equal(scores, museval(estimates, references))
    for name in NAMES:
        assert np.isnan(scores[name]).all(axis=0).tolist() == [False, True, False, True, False]
    assert np.argwhere(scores.silent).tolist() == [[0, 0, 3], [1, 1, 1]]


def test_channels_that_cancel_count_as_silent_as_in_museval(museval):
    estimates, references = sources(2, 2, 2.0)
    references[0, 1, :RATE] = -references[0, 0, :RATE]
    scores = bss_eval(estimates, references, window=RATE, hop=RATE)
    assert_equal(scores, museval(estimates, references))
    assert np.isnan(scores["sdr"][:, 0]).all()


@pytest.mark.parametrize("gain", [0, 1, -1])
def test_channels_that_are_copies_are_scored_as_in_museval(museval, gain):
    rng = np.random.default_rng(1)
    estimates, references = sources(2, 2, 2.0)
    references[:, 1] = gain * references[:, 0]
    if gain < 0:  # lest they cancel
        references[0, 1] *= 0.5
        references[1, 1] *= 0.25
    estimates = references + 0.1 * references[::-1] + 0.01 * rng.standard_normal(references.shape)
    assert_equal(
        bss_eval(estimates, references, window=RATE, hop=RATE), museval(estimates, references)
    )


def test_a_source_that_is_silent_throughout_leaves_nothing_to_score():
    estimates, references = sources(2, 1, 2.0)
    scores = bss_eval(0 * estimates, references, window=RATE, hop=RATE)
    assert all(np.isnan(scores[name]).all() for name in NAMES)
    assert scores.silent.all(axis=2).tolist() == [[True, True], [False, False]]


def test_one_source_has_all_but_interference(museval):
    signals = sources(1, 2, 2.0)
    scores, expected = bss_eval(*signals, window=RATE, hop=RATE), museval(*signals)
    assert np.isnan(scores["sir"]).all()
    for name in ("sdr", "isr", "sar"):
        np.testing.assert_allclose(scores[name], expected[name], rtol=0, atol=1e-6)


def test_the_sdr_alone_takes_no_filters_and_is_the_same(museval):
    signals = sources(2, 2, 2.5)
    alone = bss_eval(*signals, window=RATE, hop=RATE, names=["sdr"])
    assert list(alone) == ["sdr"]
    np.testing.assert_allclose(alone["sdr"], museval(*signals)["sdr"], rtol=0, atol=1e-9)


def test_a_perfect_estimate_scores_infinity():
    _, references = sources(2, 1, 2.0)
    assert np.isposinf(bss_eval(references, references, window=RATE, hop=RATE)["sdr"]).all()


def test_each_ratio_measures_what_its_name_says():
    """White noises, with spatial distortion, interference and artifacts at known levels."""
    rng = np.random.default_rng(5)
    voice, other, hiss = rng.standard_normal((3, 1, 20 * RATE))
    voice[:, -600:] = 0  # so that the echo ends, too
    echo = np.pad(voice, ((0, 0), (200, 0)))[:, :-200]
    estimate = voice + 10**-0.5 * echo + 0.1 * other + 10**-1.5 * hiss
    scores = bss_eval([estimate, other], [voice, other], window=20 * RATE, hop=RATE)
    levels = {name: scores[name][0, 0] for name in NAMES}
    assert levels["isr"] == pytest.approx(10, abs=0.3)
    assert levels["sir"] == pytest.approx(20 + 10 * np.log10(1.1), abs=0.3)
    assert levels["sar"] == pytest.approx(30 + 10 * np.log10(1.11), abs=0.3)
    assert levels["sdr"] == pytest.approx(-10 * np.log10(0.1 + 0.01 + 0.001), abs=0.1)


@pytest.mark.parametrize("size", [1, 777, 16384, 40000])
def test_blocks_of_any_size_give_the_same_scores(size):
    signals = np.stack(sources(2, 1, 2.5 if size > 1 else 0.1))
    window = signals.shape[-1] // 3

    def blocks():
        for start in range(0, signals.shape[-1], size):
            yield signals[..., start : start + size]

    whole = bss_eval(*signals, window=window, hop=window)
    pieces = bss_eval_blocks(blocks, window=window, hop=window)
    for name in NAMES:
        np.testing.assert_allclose(pieces[name], whole[name], rtol=0, atol=1e-9)


def test_memory_does_not_grow_with_the_length():
    block = np.stack(sources(2, 1, 1.0))

    def peak(blocks):
        tracemalloc.start()
        bss_eval_blocks(lambda: iter([block] * blocks), window=RATE, hop=RATE)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)  # what is imported and planned once
    assert peak(60) < 1.1 * peak(6)


@pytest.mark.parametrize(
    ("estimates", "references", "settings", "message"),
    [
        (np.ones((2, 1, 99)), np.ones((2, 1, 100)), {}, r"shapes differ: \(2, 1, 99\) and"),
        (np.ones((1, 100)), np.ones((1, 100)), {}, r"expected \(sources, channels, samples\)"),
        (np.ones((1, 1, 0)), np.ones((1, 1, 0)), {}, r"expected \(sources, channels, samples\)"),
        (np.full((1, 1, 9), np.nan), np.ones((1, 1, 9)), {}, "NaN or infinite"),
        (np.ones((1, 1, 9)), np.ones((1, 1, 9)), {"window": 0}, "at least one sample, not 0 and 5"),
        (np.ones((1, 1, 9)), np.ones((1, 1, 9)), {"names": ["snr"]}, "sdr, isr, sir, sar, not snr"),
    ],
)
def test_what_cannot_be_scored_is_refused(estimates, references, settings, message):
    with pytest.raises(ValueError, match=message):
        bss_eval(estimates, references, **{"window": 5, "hop": 5, **settings})


def test_filters_are_solved_by_one_thread_as_several_wait_for_each_other(monkeypatch):
    factor, found = linalg.cho_factor, []

    def watched(*args, **choices):
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        found.append({pool["num_threads"] for pool in pools})
        return factor(*args, **choices)

    monkeypatch.setattr(linalg, "cho_factor", watched)
    estimates, references = sources(seconds=1.0)
    with threadpool_limits(2, "blas"):
        bss_eval(estimates, references, window=RATE, hop=RATE)
    assert found == [{1}] * 3
