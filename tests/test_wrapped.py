"""Transforms for convolution, against scipy's convolution wrapped by hand."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from sepcli.dsp import wrapped


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def wrap(signal, n):
    """(..., 2n - 1) to (..., n): what comes after n is subtracted from the beginning."""
    out = signal[..., :n].copy()
    out[..., : n - 1] -= signal[..., n:]
    return out


@pytest.mark.parametrize("n", [16, 32, 16 * 7, 16 * 1024, 16 * 3000])
def test_a_product_is_a_convolution_whose_end_is_subtracted_from_its_beginning(n):
    x, y = noise(0, n), noise(1, n)
    got = wrapped.inverse(wrapped.forward(x) * wrapped.forward(y))
    np.testing.assert_allclose(got, wrap(fftconvolve(x, y), n), atol=1e-10)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_back_and_forth_changes_nothing(dtype, atol):
    x = noise(0, 2, 3, 16 * 60).astype(dtype)
    spectrum = wrapped.forward(x)
    assert spectrum.shape == (2, 3, 60, wrapped.PARTS)
    back = wrapped.inverse(spectrum)
    assert back.dtype == dtype
    np.testing.assert_allclose(back, x, atol=atol)
    for start in (1, 60, 200):
        rest = wrapped.inverse(wrapped.forward(x), start)
        np.testing.assert_allclose(rest, back[..., start:], atol=atol)


@given(st.integers(1, 10**7))
def test_fast_sizes_are_little_larger_than_asked_for(samples):
    n = wrapped.fast_size(samples)
    assert samples <= n <= 1.1 * samples + 16 * 2
    assert n % (2 * wrapped.PARTS) == 0


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import hashlib, numpy as np; from sepcli.dsp import wrapped\n"
        "x = np.random.default_rng(0).standard_normal((3, 96000)).astype(np.float32)\n"
        "s = wrapped.forward(x); digest = hashlib.sha256(s.tobytes())\n"
        "digest.update(wrapped.inverse(s).tobytes()); print(digest.hexdigest())"
    )
    digests = {
        subprocess.check_output(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        )
        for threads in ("1", "2")
    }
    assert len(digests) == 1
