"""BSS Eval, version 4: SDR, ISR, SIR and SAR of all sources of a mixture, frame by frame.

An estimate is taken apart into its reference, what filters of 512 taps on that reference add
(spatial distortion), what filters on the other references add (interference), and the rest
(artifacts). The filters are fitted to whole signals, the energies measured in frames.

Vincent et al., "First stereo audio source separation evaluation campaign", ICA 2007; Stöter et
al., "The 2018 signal separation evaluation campaign", LVA/ICA 2018. The numbers are those of
`museval` (mode "v4"), the field's reference, to its rounding errors.

Shapes: S sources, C channels, F frames, M = S·C references' channels, K = S·C estimates' channels.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sepcli.dsp.level import to_db

NAMES = ("sdr", "isr", "sir", "sar")
TAPS = 512
FFT = 1 << 14  # samples that are correlated at a time


class Frames(dict):
    """Metric name -> scores (S, F) in dB; NaN where any signal of the frame is silent.

    silent: bool (2, S, F), whether an estimate [0] or a reference [1] is.
    """

    def __init__(self, scores: dict[str, np.ndarray], silent: Any) -> None:
        super().__init__(scores)
        self.silent = silent


def bss_eval(
    estimates: np.ndarray,
    references: np.ndarray,
    *,
    window: int,
    hop: int,
    names: Sequence[str] = NAMES,
) -> Frames:
    """Score estimates (S, C, T) against references (S, C, T); returns `Frames`.

    window and hop are in samples. A tail that does not fill a window is left out; signals shorter
    than a window are one frame. A perfect estimate scores inf. A single source has no SIR: NaN.
    Raises ValueError for wrong shapes, names and lengths, and for samples that are no numbers.
    """
    estimates, references = np.asarray(estimates), np.asarray(references)
    if estimates.shape != references.shape:
        raise ValueError(f"shapes differ: {estimates.shape} and {references.shape}")
    if estimates.ndim != 3 or estimates.size == 0:
        raise ValueError(f"expected (sources, channels, samples), got shape {estimates.shape}")
    pair = np.stack([estimates, references])
    return bss_eval_blocks(lambda: [pair], window=window, hop=hop, names=names)


def bss_eval_blocks(
    blocks: Callable[[], Iterable[np.ndarray]],
    *,
    window: int,
    hop: int,
    names: Sequence[str] = NAMES,
) -> Frames:
    """Score signals of any length in little memory; otherwise like `bss_eval`.

    blocks: a function that returns an iterable, from the start each time, of consecutive pieces
        (2, S, C, n) of all estimates [0] and references [1]. It is called once for the SDR, which
        needs no filters, and twice for anything else.
    """
    if not set(names) <= set(NAMES):
        raise ValueError(f"metrics are {', '.join(NAMES)}, not {', '.join(names)}")
    if window < 1 or hop < 1:
        raise ValueError(f"window and hop are at least one sample, not {window} and {hop}")
    measure = _sdr
    if set(names) - {"sdr"}:
        own, cross, T = _correlations(blocks())
        measure = _Projections(own, cross, min(window, T)).measure
    scores, silent = [], []
    for index, frame in enumerate(_frames(blocks(), window, hop)):
        if index == 0 or frame.shape[-1] == window:
            silent.append(~frame.sum(axis=2).any(axis=-1))  # (2, S); museval: of channels' sums
            scores.append(_undefined(frame) if silent[-1].any() else measure(frame))
    return Frames(
        {name: np.stack([score[name] for score in scores], axis=-1) for name in names},
        np.stack(silent, axis=-1),
    )


def _frames(blocks, size, hop):
    """Yield float64 (2, S, C, size) of consecutive blocks, `hop` apart; the last may be shorter."""
    held = None  # what begins with the next frame
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=-1)
        while held.shape[-1] >= max(size, hop):
            yield _checked(held[..., :size])
            held = held[..., hop:]
    while held is not None and held.shape[-1]:
        yield _checked(held[..., :size])
        held = held[..., hop:]


def _checked(frame):
    frame = frame.astype(np.float64)
    if not np.isfinite(frame).all():
        raise ValueError("a signal has samples that are NaN or infinite")
    return frame


def _undefined(frame):
    return dict.fromkeys(NAMES, np.full(frame.shape[1], np.nan))


def _sdr(frame):
    """The SDR of a frame (2, S, C, n): the parts add up to the difference, whatever they are."""
    estimate, reference = frame
    return {"sdr": _ratio(_energy(reference), _energy(reference - estimate))}


def _energy(signals):
    """(S, C, n) -> (S,)."""
    return np.einsum("scn,scn->s", signals, signals)


def _ratio(signal, distortion):
    """10·log10 of energies' ratio; infinite without distortion, also of nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distortion == 0, np.inf, to_db(signal / distortion))


def _correlations(blocks):
    """Correlations of references with references and estimates, out of blocks (2, S, C, n).

    Returns those with references, (S, C, S, C, TAPS), those with estimates, likewise, and T. The
    sum over t of reference i's channel a at t times signal j's channel b at t + k is at
    [i, a, j, b, k].
    """
    from scipy import fft

    total, T = None, 0
    size = FFT - TAPS + 1
    for frame in _frames(blocks, FFT, size):
        _, S, C, _ = frame.shape
        later = fft.rfft(frame.reshape(2 * S * C, -1), FFT)  # (K + M, bins)
        now = np.conj(fft.rfft(frame[1, ..., :size].reshape(S * C, -1), FFT))  # (M, bins)
        if total is None:
            total = np.zeros((S * C, *later.shape), np.complex128)
        for row, spectrum in zip(total, now, strict=True):
            row += spectrum * later
        T += min(frame.shape[-1], size)
    lags = fft.irfft(total, FFT)[..., :TAPS].reshape(S, C, 2, S, C, TAPS)
    return lags[:, :, 1], lags[:, :, 0], T


def _filters(own, cross):
    """Least-squares filters from M references to K estimates, (M, K, TAPS).

    own: correlations among the references, (M, M, TAPS); cross: with the estimates, (M, K, TAPS).
    """
    from scipy import linalg

    M, K, _ = cross.shape
    sides = cross.transpose(0, 2, 1).reshape(M * TAPS, K)
    ridge = np.finfo(float).eps  # museval's, against silent channels
    while True:
        try:
            factor = linalg.cho_factor(_gram(own, ridge), lower=True, overwrite_a=True)
            break
        except linalg.LinAlgError:  # references that are copies of each other, as in dual mono
            ridge = max(10 * ridge, np.finfo(float).eps * own.max())
    solved = linalg.cho_solve(factor, sides)
    return solved.reshape(M, TAPS, K).transpose(0, 2, 1)


def _gram(own, ridge):
    """Inner products of all references at all delays, (M·TAPS, M·TAPS), from `_filters`' own."""
    from scipy import linalg

    M = len(own)
    gram = np.empty((M * TAPS, M * TAPS), order="F")
    for i in range(M):
        for j in range(M):
            rows, columns = (slice(k * TAPS, (k + 1) * TAPS) for k in (i, j))
            gram[rows, columns] = linalg.toeplitz(own[i, j], own[j, i])
    gram[np.diag_indices_from(gram)] += ridge
    return gram


class _Projections:
    """Energies of a frame's projections onto references, by spectra.

    Each signal of a frame is padded so that the filters' tails fit: the energy of a filtered signal
    is then that of the product of spectra (Parseval), and nothing has to be transformed back.
    """

    def __init__(self, own, cross, window):
        """own, cross: as from `_correlations`; window: the longest frame, in samples."""
        from scipy import fft
        from threadpoolctl import threadpool_limits

        S, C = own.shape[:2]
        self._size = fft.next_fast_len(window + TAPS - 1, real=True)
        with threadpool_limits(1, "blas"):  # several wait for each other, and that busily
            full = _filters(own.reshape(S * C, S * C, TAPS), cross.reshape(S * C, S * C, TAPS))
            alone = np.stack([_filters(own[s, :, s], cross[s, :, s]) for s in range(S)])
        self._all = fft.rfft(full, self._size)  # (M, K, bins)
        self._own = fft.rfft(alone, self._size)  # (S, C, C, bins)
        self._once = [0, -1] if self._size % 2 == 0 else [0]  # bins; all others stand for two

    def measure(self, frame):
        """All metrics, (S,) each, of a frame (2, S, C, n)."""
        from scipy import fft

        _, S, C, _ = frame.shape
        spectra = fft.rfft(frame, self._size)  # (2, S, C, bins)
        estimate, reference = spectra
        filtered = np.einsum("saf,sacf->scf", reference, self._own)
        inputs = reference.reshape(S * C, -1)
        projected = np.einsum("mf,mkf->kf", inputs, self._all).reshape(S, C, -1)
        true = self._energy(reference)
        interference = self._energy(projected - filtered) if S > 1 else np.full(1, np.nan)
        return _sdr(frame) | {
            "isr": _ratio(true, self._energy(filtered - reference)),
            "sir": _ratio(self._energy(filtered), interference),
            "sar": _ratio(self._energy(projected), self._energy(estimate - projected)),
        }

    def _energy(self, spectra):
        """(S, C, bins) -> (S,)."""
        once = spectra[..., self._once]
        twice, once = (_energy(np.ascontiguousarray(x).view(np.float64)) for x in (spectra, once))
        return (2 * twice - once) / self._size
