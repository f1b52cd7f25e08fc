import pickle

import numpy as np
import pesq as itu
import pystoi
import pytest
import soxr

from sepcli import metrics
from sepcli.errors import SepcliError
from sepcli.metrics.pesq import pesq, pesq_narrow_band, pesq_wide_band
from sepcli.metrics.score import Score
from sepcli.metrics.sisdr import si_sdr, si_sdr_improvement
from sepcli.metrics.snr import snr, snr_improvement
from sepcli.metrics.stoi import extended_stoi, stoi

RATE = 16000


def voice(seconds=2.0, rate=RATE, pitch=120):
    """Syllables of a buzz at about `pitch` Hz, with a pause every second; (1, T)."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch + 20 * np.sin(2 * np.pi * 0.7 * t)) / rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 25))
    return (0.2 * buzz * np.clip(np.sin(2 * np.pi * t), 0, 1) * np.abs(np.sin(8 * np.pi * t)))[None]


def noise(like, seed=0):
    return 0.05 * np.random.default_rng(seed).standard_normal(like.shape)


# --- what every metric keeps to


GRADED = [
    name for name, each in metrics.METRICS.items() if not (each.framewise or each.scene)
]  # those of scenes are in test_eval_speakers.py


@pytest.fixture(params=GRADED)
def metric(request):
    return metrics.load(request.param)


def test_a_better_estimate_scores_higher(metric):
    reference = voice()
    scores = [
        metric(reference + gain * noise(reference), reference, RATE, reference + noise(reference))
        for gain in (0.8, 0.4, 0.1)
    ]
    assert scores == sorted(scores)
    assert len(set(scores)) == 3
    assert all(np.isfinite(scores))


def test_nothing_scores_higher_than_the_reference_itself(metric):
    reference = voice()
    mixture = reference + noise(reference)
    top = metric(reference, reference, RATE, mixture)
    assert top > metric(reference + 1e-3 * noise(reference), reference, RATE, mixture)


def test_a_silent_reference_has_no_score(metric):
    mixture = voice() + noise(voice())
    score = metric(voice(), np.zeros_like(mixture), RATE, mixture)
    assert np.isnan(score)
    assert score.note == "silent reference"


@pytest.mark.parametrize("gain", [1e-6, 1e-14, 1e-16, 1e-38, 1e-300])
def test_very_quiet_signals_have_a_score_or_a_reason(metric, gain):
    reference = voice()
    estimate, mixture = reference + 0.3 * noise(reference), reference + noise(reference)
    for quiet in (
        metric(gain * estimate, reference, RATE, mixture),
        metric(estimate, gain * reference, RATE, mixture),
    ):
        assert np.isfinite(quiet) or quiet.note in ("silent estimate", "silent reference")


def test_scores_do_not_depend_on_what_was_scored_before(metric):
    reference = voice()
    arguments = reference + noise(reference), reference, RATE, reference + 2 * noise(reference)
    np.random.seed(1)
    first = metric(*arguments)
    np.random.seed(2)
    before = np.random.get_state()[1].tolist()
    assert metric(*arguments) == first
    assert np.random.get_state()[1].tolist() == before


def test_the_score_of_two_channels_is_between_those_of_each(metric):
    reference = np.concatenate([voice(pitch=110), voice(pitch=150)])
    estimate = reference + np.array([[0.2], [0.6]]) * noise(reference)
    mixture = reference + noise(reference)
    apart = [
        metric(estimate[c], reference[c], RATE, mixture[c]) for c in (slice(0, 1), slice(1, 2))
    ]
    assert min(apart) < metric(estimate, reference, RATE, mixture) < max(apart)


@pytest.mark.parametrize(
    ("estimate", "reference", "message"),
    [
        (np.ones((1, 99)), np.ones((1, 100)), r"shapes differ: .*\(1, 99\).*"),
        (np.ones((2, 100)), np.ones((1, 100)), r"shapes differ"),
        (np.ones(100), np.ones(100), r"expected \(channels, samples\), got shape \(100,\)"),
        (np.ones((1, 0)), np.ones((1, 0)), r"expected \(channels, samples\)"),
        (np.full((1, 100), np.nan), np.ones((1, 100)), "NaN or infinite"),
    ],
)
def test_wrong_shapes_and_numbers_are_refused(metric, estimate, reference, message):
    with pytest.raises(ValueError, match=message):
        metric(estimate, reference, RATE, np.ones_like(reference))


def test_keys_carry_the_unit_and_are_unique():
    assert metrics.key("si-sdri") == "si_sdri_db"
    assert metrics.key("pesq-wb") == "pesq_wb"
    assert len({metrics.key(name) for name in metrics.METRICS}) == len(metrics.METRICS)


def test_an_unknown_metric_is_an_error_that_names_the_known_ones():
    with pytest.raises(SepcliError, match=r"unknown metric 'sisdr'; choose from sdr, isr, sir"):
        metrics.load("sisdr")


def test_a_package_that_does_not_import_is_one_line(monkeypatch):
    monkeypatch.setitem(metrics.METRICS, "odd", metrics.Metric("sepcli.metrics.nothing:f", "", ""))
    with pytest.raises(
        SepcliError, match=r"metric odd: No module named .*; install .* leave odd out of --metrics"
    ):
        metrics.load("odd")


def test_a_score_keeps_its_note_through_a_process_boundary():
    score = pickle.loads(pickle.dumps(Score(2.5, "wide band")))
    assert (score, score.note) == (2.5, "wide band")


# --- SI-SDR


def test_si_sdr_of_a_quadrature_tone_at_a_tenth_is_exactly_20_db():
    phase = 2 * np.pi * 5 * np.arange(1000) / 1000
    reference = np.sin(phase)[None]
    estimate = reference + 0.1 * np.cos(phase)
    assert si_sdr(estimate, reference) == pytest.approx(20, abs=1e-9)
    for gain, offset in ((-1, 0), (0.01, 0), (1, 0.5), (-7, -2)):
        assert si_sdr(gain * estimate + offset, reference) == pytest.approx(20, abs=1e-9)


def test_si_sdr_equals_bss_eval_with_a_filter_of_one_tap(museval_metrics):
    rng = np.random.default_rng(3)
    for seed in range(5):
        reference = voice(0.5)
        estimate = rng.uniform(-2, 2) * reference + rng.uniform(0.1, 3) * noise(reference, seed)
        centred = [signal - signal.mean() for signal in (reference, estimate)]
        expected, *_ = museval_metrics.bss_eval(
            centred[0][..., None],
            centred[1][..., None],
            window=np.inf,
            hop=np.inf,
            filters_len=1,
            bsseval_sources_version=True,
        )
        assert si_sdr(estimate, reference) == pytest.approx(expected.item(), abs=1e-6)


def test_si_sdr_of_channels_is_the_mean_of_their_numbers():
    phase = 2 * np.pi * 5 * np.arange(1000) / 1000
    reference = np.stack([np.sin(phase), np.sin(phase)])
    estimate = reference + np.array([[0.1], [0.01]]) * np.cos(phase)
    assert si_sdr(estimate, reference) == pytest.approx((20 + 40) / 2, abs=1e-9)


def test_si_sdr_leaves_out_channels_that_are_silent_in_the_reference():
    phase = 2 * np.pi * 5 * np.arange(1000) / 1000
    reference = np.stack([np.sin(phase), 0 * phase])
    estimate = reference + 0.1 * np.cos(phase)
    assert si_sdr(estimate, reference) == pytest.approx(20, abs=1e-9)


def test_si_sdr_has_no_score_for_a_silent_estimate():
    score = si_sdr(np.full((1, 100), 0.3), voice(0.1)[:, :100])
    assert np.isnan(score)
    assert score.note == "silent estimate"


def test_si_sdr_of_a_constant_reference_is_undefined_rather_than_rounding_noise():
    score = si_sdr(voice(0.1), np.full((1, 1600), 0.1))
    assert score.note == "silent reference"


def test_si_sdr_of_unrelated_signals_is_minus_infinity():
    phase = 2 * np.pi * np.arange(4) / 4
    assert si_sdr(np.array([[1.0, -1, 1, -1]]), np.round(np.sin(phase))[None]) == -np.inf


def test_si_sdr_improvement_is_the_difference_to_the_mixture():
    reference = voice()
    mixture, estimate = reference + noise(reference), reference + 0.1 * noise(reference)
    gained = si_sdr_improvement(estimate, reference, RATE, mixture)
    assert gained == pytest.approx(si_sdr(estimate, reference) - si_sdr(mixture, reference))
    assert gained == pytest.approx(20, abs=0.1)
    assert si_sdr_improvement(mixture, reference, RATE, mixture) == 0


@pytest.mark.parametrize(
    ("mixture", "reason"),
    [(voice(), "the mixture contains only the reference"), (0 * voice(), "silent mixture")],
)
def test_si_sdr_improvement_needs_a_mixture_that_can_improve(mixture, reason):
    score = si_sdr_improvement(voice() + noise(voice()), voice(), RATE, mixture)
    assert np.isnan(score)
    assert score.note.startswith(reason)


# --- SNR


def test_snr_equals_sdr_of_bss_eval_4_over_all_channels(museval_metrics):
    reference = np.concatenate([voice(0.5), 0.3 * voice(0.5, pitch=180)])
    estimate = 0.9 * reference + noise(reference)
    expected, *_ = museval_metrics.bss_eval(
        reference.T[None], estimate.T[None], window=np.inf, hop=np.inf, filters_len=1
    )
    assert snr(estimate, reference) == pytest.approx(expected.item(), abs=1e-9)


def test_snr_counts_a_wrong_level_as_noise():
    assert snr(0.9 * voice(), voice()) == pytest.approx(20)
    assert snr(-voice(), voice()) == pytest.approx(-20 * np.log10(2))
    assert snr(0 * voice(), voice()) == 0
    assert snr(voice(), voice()) == np.inf


def test_snr_improvement_is_the_difference_to_the_mixture():
    reference = voice()
    mixture, estimate = reference + noise(reference), reference + 0.1 * noise(reference)
    assert snr_improvement(estimate, reference, RATE, mixture) == pytest.approx(20)
    score = snr_improvement(estimate, reference, RATE, reference)
    assert score.note == "the mixture contains only the reference"


# --- PESQ


@pytest.mark.parametrize(
    ("function", "rate", "mode", "note"),
    [
        (pesq, 16000, "wb", "wide band, 16000 Hz"),
        (pesq, 8000, "nb", "narrow band, 8000 Hz"),
        (pesq_wide_band, 16000, "wb", "wide band, 16000 Hz"),
        (pesq_narrow_band, 8000, "nb", "narrow band, 8000 Hz"),
    ],
)
def test_pesq_is_that_of_the_package(function, rate, mode, note):
    reference = voice(rate=rate)
    estimate = reference + 0.3 * noise(reference)
    score = function(estimate, reference, rate)
    assert score == itu.pesq(rate, reference[0], estimate[0], mode)
    assert score.note == note


def test_pesq_resamples_and_says_so():
    reference = voice(rate=44100)
    estimate = reference + 0.3 * noise(reference)
    score = pesq(estimate, reference, 44100)
    at_16k = [soxr.resample(signal[0], 44100, 16000) for signal in (reference, estimate)]
    assert score == pytest.approx(itu.pesq(16000, *at_16k, "wb"), abs=1e-3)
    assert score.note == "wide band, 16000 Hz, resampled from 44100 Hz"


@pytest.mark.parametrize("rate", [16000, 44100])
def test_narrow_band_pesq_is_measured_at_8_khz(rate):
    reference = voice(rate=rate)
    estimate = reference + 0.3 * noise(reference)
    score = pesq_narrow_band(estimate, reference, rate)
    at_8k = [soxr.resample(signal[0], rate, 8000) for signal in (reference, estimate)]
    assert score == pytest.approx(itu.pesq(8000, *at_8k, "nb"), abs=1e-3)
    assert score.note == f"narrow band, 8000 Hz, resampled from {rate} Hz"


def test_wide_band_pesq_does_not_exist_at_8_khz():
    score = pesq_wide_band(voice(rate=8000), voice(rate=8000), 8000)
    assert np.isnan(score)
    assert score.note == "wide band needs 16000 Hz, not 8000 Hz"


def test_pesq_survives_more_utterances_than_its_code_can_hold():
    t = np.arange(30 * RATE) / RATE  # 60 bursts; the arrays in the package end at 50
    reference = (0.3 * np.sin(1400 * np.pi * t) * (t % 0.5 < 0.25))[None]
    estimate = reference + 0.01 * noise(reference)
    score = pesq(estimate, reference, RATE)
    halves = [slice(0, 15 * RATE), slice(15 * RATE, 30 * RATE)]
    expected = [itu.pesq(RATE, reference[0, h], estimate[0, h], "wb") for h in halves]
    assert score == pytest.approx(np.mean(expected), abs=1e-12)
    assert score.note == "wide band, 16000 Hz, mean of 2 pieces"


def test_pesq_leaves_out_pieces_in_which_nobody_speaks():
    reference = np.concatenate([voice(2), np.zeros((1, 20 * RATE))], axis=1)
    estimate = reference + 0.1 * noise(reference)
    score = pesq(estimate, reference, RATE)
    assert score == itu.pesq(RATE, reference[0, : 11 * RATE], estimate[0, : 11 * RATE], "wb")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (voice(0.2), "shorter than 0.25 s"),
        (noise(np.zeros((1, RATE))) * (abs(np.arange(RATE) - 8000) < 800), "no utterance in"),
    ],
)
def test_pesq_has_no_score_without_speech(reference, reason):
    score = pesq(reference + noise(reference, 1), reference, RATE)
    assert np.isnan(score)
    assert score.note.startswith(reason)


def test_pesq_has_no_score_for_a_silent_estimate():
    assert pesq(0 * voice(), voice(), RATE).note == "silent estimate"
    long = np.concatenate([voice(11), voice(11)], axis=1)
    half = np.concatenate([voice(11), 0 * voice(11)], axis=1)
    assert pesq(half, long, RATE).note == "silent estimate"


# --- STOI


@pytest.mark.parametrize(("function", "extended"), [(stoi, False), (extended_stoi, True)])
@pytest.mark.parametrize("rate", [10000, 16000, 44100])
def test_stoi_is_that_of_the_package(function, extended, rate):
    reference = voice(rate=rate)
    estimate = reference + noise(reference)
    expected = pystoi.stoi(reference[0], estimate[0], rate, extended)
    assert function(estimate, reference, rate) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("function", [stoi, extended_stoi])
@pytest.mark.parametrize(
    "reference",
    [voice(0.3), np.concatenate([voice(0.35), np.zeros((1, RATE))], axis=1), voice(0.001)],
    ids=["short", "mostly silent", "16 samples"],
)
def test_stoi_has_no_score_for_less_than_its_window(function, reference):
    score = function(reference + 1e-6 * noise(reference), reference, RATE)
    assert np.isnan(score)
    assert score.note == "less than 0.4 s of sound in the reference"
