"""Small samples, and sample streams as bytes, for the tests of whatever reads and writes them."""

import io

import numpy as np

from sepcli.samples.streams import Sample, open_sample_writer, read_samples


def tone(index=0, *, frames=160, channels=1):
    """A signal unlike that of any other index; float32 (C, T)."""
    phase = np.arange(channels * frames).reshape(channels, frames) * (0.01 + 0.003 * index)
    return (0.5 * np.sin(phase)).astype(np.float32)


def make_sample(index=0, *, key=None, frames=160, roles=("mix", "ref.speech"), **meta):
    """A sample at 16 kHz with one tone per role."""
    sample = Sample(key or f"{index:06d}", {"sample_rate": 16000, **meta})
    for number, role in enumerate(roles):
        sample.set_audio(role, tone(10 * index + number, frames=frames))
    return sample


def to_tar(samples, *, close=True):
    """The bytes of a sample stream; without its end when `close` is False."""
    stream = io.BytesIO()
    try:
        with open_sample_writer("-", stdout=stream) as writer:
            for sample in samples:
                writer.write(sample)
            if not close:
                raise InterruptedError
    except InterruptedError:
        pass
    return stream.getvalue()


def from_tar(data, **settings):
    """The list of samples in the bytes of a stream."""
    return list(read_samples("-", stdin=io.BytesIO(data), **settings))
