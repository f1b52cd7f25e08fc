"""What every signal is checked for on its way in and out."""

import numpy as np

from sepcli.errors import SepcliError

HIGHEST_RATE = 768_000  # Hz; the fastest converters on sale
MOST_CHANNELS = 64


def check_layout(name, sample_rate, channels):
    """Refuse sample rates and channel counts that only a damaged header holds."""
    if not 1 <= sample_rate <= HIGHEST_RATE:
        raise SepcliError(
            f"{name}: a sample rate of {sample_rate} Hz; "
            f"1 to {HIGHEST_RATE} Hz work, so its header is probably damaged"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise SepcliError(
            f"{name}: {channels} channels; 1 to {MOST_CHANNELS} work, "
            "so its header is probably damaged"
        )


def check_finite(name, audio, sample_rate, *, start=0):
    """Refuse NaN and Inf in (C, T), naming where the first one is; `start` is T's first frame."""
    finite = np.isfinite(audio)
    if not finite.all():
        frame = int(np.argmin(finite.all(axis=0)))
        value = audio[int(np.argmin(finite[:, frame])), frame]
        raise SepcliError(
            f"{name}: {'NaN' if np.isnan(value) else 'infinity'} at "
            f"{(start + frame) / sample_rate:.3f} s (sample {start + frame}); repair or remove it"
        )
