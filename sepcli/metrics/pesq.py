"""PESQ, the perceived quality of speech (ITU-T P.862), by the `pesq` package.

The scale is MOS-LQO: about 1.04 to 4.64 wide band, 1.02 to 4.55 narrow band.
"""

import numpy as np
import pesq as itu

from sepcli import audio
from sepcli.metrics.score import Score, over_channels, silent, undefined

# The ITU's code holds 50 utterances and writes past its arrays at the next one. An utterance lasts
# at least 0.2 s, and so does the gap to the next: 20 s are safe, whatever is in them.
PIECE_S = 20
NO_UTTERANCE = undefined("no utterance in the reference")


def pesq(
    estimate: np.ndarray, reference: np.ndarray, sample_rate: int, mixture: np.ndarray | None = None
) -> Score:
    """PESQ, wide band for signals of 16 kHz and more, else narrow band (at 8 kHz) -> Score."""
    score = pesq_wide_band if sample_rate >= 16000 else pesq_narrow_band
    return score(estimate, reference, sample_rate)


def pesq_wide_band(
    estimate: np.ndarray, reference: np.ndarray, sample_rate: int, mixture: np.ndarray | None = None
) -> Score:
    """PESQ by P.862.2 (50 to 7000 Hz), mean over channels; (C, T), (C, T) -> Score.

    Signals above 16 kHz are resampled to it; those below have no such score. NaN when a signal is
    silent, has no utterance of 0.2 s, or is shorter than 0.25 s. Signals longer than 20 s are cut
    into equal pieces, and the mean of those is the score.
    """
    if sample_rate < 16000:
        return undefined(f"wide band needs 16000 Hz, not {sample_rate} Hz")
    return _pesq(estimate, reference, sample_rate, 16000, "wb")


def pesq_narrow_band(
    estimate: np.ndarray, reference: np.ndarray, sample_rate: int, mixture: np.ndarray | None = None
) -> Score:
    """PESQ by P.862.1 (telephone band), mean over channels; (C, T), (C, T) -> Score.

    At 8 kHz, whatever the signals' rate, as P.862 has it for telephone speech: their resampled
    versions are compared. The rest as in `pesq_wide_band`.
    """
    return _pesq(estimate, reference, sample_rate, 8000, "nb")


def _pesq(estimate, reference, sample_rate, rate, mode):
    note = f"{'wide' if mode == 'wb' else 'narrow'} band, {rate} Hz"
    if sample_rate != rate:
        note += f", resampled from {sample_rate} Hz"

    def score(estimate, reference):
        if sample_rate != rate:
            estimate, reference = audio.resample(np.stack([estimate, reference]), sample_rate, rate)
        pieces = -(-len(reference) // (PIECE_S * rate))
        scores = [
            _piece(*piece, rate, mode)
            for piece in zip(
                np.array_split(estimate, pieces), np.array_split(reference, pieces), strict=True
            )
        ]
        scores = [s for s in scores if s is not NO_UTTERANCE] or [NO_UTTERANCE]
        for each in scores:
            if np.isnan(each):
                return each
        cut = f", mean of {len(scores)} pieces" if pieces > 1 else ""
        return Score(sum(scores) / len(scores), note + cut)

    return over_channels(score, estimate, reference)


def _piece(estimate, reference, rate, mode):
    if len(reference) < rate / 4:
        return undefined("shorter than 0.25 s")
    if silent(reference):
        return NO_UTTERANCE
    if silent(estimate):
        return undefined("silent estimate")
    try:
        return itu.pesq(rate, reference, estimate, mode)
    except itu.NoUtterancesError:
        return NO_UTTERANCE
