"""`sepcli separate --full-band`: the band above the model's."""

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli import cli
from sepcli.mixing import synthetic

RATE = 48000


def high_db(x):
    """Power of (T,) above 9 kHz, in dB."""
    spectrum = np.fft.rfft(x)[9 * len(x) // 48 :]
    return 10 * np.log10(np.square(np.abs(spectrum)).mean() + 1e-20)


@pytest.fixture
def noisy(tmp_path):
    """Two seconds of synthetic speech with noise, 48 kHz."""
    rng = np.random.default_rng(0)
    x = synthetic.speech(2 * RATE, RATE, rng, 0) + 0.003 * rng.standard_normal(2 * RATE)
    soundfile.write(tmp_path / "noisy.wav", x, RATE, subtype="FLOAT")
    return tmp_path


@pytest.mark.parametrize("models", [("denoise-tiny",), ("denoise-tiny", "denoise-tiny")])
def test_the_band_above_the_model_is_kept_only_when_asked_for(noisy, models):
    named = [word for model in models for word in ("-m", model)]
    for folder, flags in (("without", ()), ("with", ("--full-band", "--residual"))):
        args = ["separate", *named, str(noisy / "noisy.wav"), "-o", str(noisy / folder), *flags]
        assert CliRunner().invoke(cli.main, args).exit_code == 0
    mixture = soundfile.read(noisy / "noisy.wav")[0]
    found = {
        path.relative_to(noisy).parts[0] + "/" + path.stem: soundfile.read(path)[0]
        for path in noisy.glob("with*/**/*.wav")
    }
    assert high_db(found["without/speech"]) < high_db(mixture) - 40
    assert high_db(mixture) - 20 < high_db(found["with/speech"]) < high_db(mixture)
    total = found["with/speech"] + found["with/noise"] + found["with/residual"]
    np.testing.assert_allclose(total, mixture, atol=1e-5)


def test_audio_of_the_rate_of_the_model_comes_out_the_same(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "x.wav", 0.1 * rng.standard_normal(8000), 16000)
    for name, flags in (("a", ()), ("b", ("--full-band",))):
        out = str(tmp_path / f"{name}.wav")
        args = ["separate", "-m", "denoise-tiny", "--target", "speech", "-o", out, *flags]
        assert CliRunner().invoke(cli.main, [*args, str(tmp_path / "x.wav")]).exit_code == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
