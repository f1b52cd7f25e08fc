"""The microcontroller's code, compiled and run here, against the model in Python.

With HOST_REAL double it has the model's precision, so that every 8-bit feature and every logit of
the mask can be expected to be the same. In single precision, as on the microcontroller, a feature
that lies on the edge between two integers may fall to either side.
"""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
import torch

from sepcli.errors import SepcliError
from sepcli.max78000.host import Host
from sepcli.max78000.plan import plan
from sepcli.quant import chip
from tests.chips import audio, calibrated

MODELS = {
    "learned": {},
    "stft": {"transform": "stft"},
    "three": {"sources": ("a", "b", "c"), "filters": 20, "kernel": 40},
    "single": {"transform": "stft", "sources": ("speech",), "kernel": 64},
}
FRAMES = {"learned": 20, "stft": 2, "three": 7, "single": 1}
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow")
NETWORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def compile_host(host, folder, real):
    """The shared library of host.c, which computes in the C type `real`."""
    folder.mkdir(exist_ok=True)
    (folder / "host.h").write_text(host.header)
    (folder / "host.c").write_text(host.source)
    (folder / "size.c").write_text('#include "host.h"\nunsigned long s = sizeof(host_state);\n')
    library = folder / f"host_{real}.so"
    options = [
        "-Wdouble-promotion",
        "-Werror",
        "-O2",
        "-shared",
        "-fPIC",
        "-DHOST_COUNT",
        f"-DHOST_REAL={real}",
    ]
    files = [str(folder / "host.c"), str(folder / "size.c"), "-o", str(library)]
    subprocess.run([shutil.which("cc"), *WARNINGS, *options, *files], check=True, timeout=120)
    return library


class Microcontroller:
    """host.c at work: `run(audio)` gives all sources, and keeps the features and the logits."""

    def __init__(self, host, network, library, dtype):
        self.size, self.network, self.dtype = host.sizes, network, dtype
        self.library = ctypes.CDLL(str(library))
        self.library.host_word.restype = ctypes.c_uint32
        self.library.host_word.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self.library.host_run.argtypes = [ctypes.c_void_p] * 3 + [NETWORK, ctypes.c_void_p]
        self.state_bytes = ctypes.c_ulong.in_dll(self.library, "s").value
        self.features, self.logits = [], []

    @property
    def macs(self):
        return ctypes.c_ulonglong.in_dll(self.library, "host_macs").value

    def run(self, samples):
        """Samples (T,), T a multiple of those of one run, to (S, T)."""
        state, out = ctypes.create_string_buffer(self.state_bytes), []
        for chunk in samples.astype(self.dtype).reshape(-1, self.size["SAMPLES"]):
            y = np.zeros((self.size["SOURCES"], self.size["SAMPLES"]), self.dtype)
            chunk = np.ascontiguousarray(chunk)
            self.library.host_run(
                state, chunk.ctypes.data, y.ctypes.data, NETWORK(self._accelerator), None
            )
            out.append(y)
        return np.concatenate(out, 1)

    def _accelerator(self, user, state, logits):
        """Take the words that the accelerator would get, and simulate it."""
        size, word = self.size, self.library.host_word
        words = [
            [word(state, i, j) for j in range(size["WORDS"])] for i in range(size["INSTANCES"])
        ]
        # instances i, frames t, passes p, channels c of each word
        quads = np.array(words, "<u4").view(np.int8).reshape(len(words), -1, size["PASSES"], 4)
        planes = quads.transpose(2, 0, 3, 1).reshape(size["PASSES"], -1, quads.shape[1])
        window = planes[:, : size["PROCESSORS"]].reshape(-1, quads.shape[1])[: size["FEATURES"]]
        history = self.network.context - self.network.dummies
        self.features.append(window[:, history:][:, : size["FRAMES"]])
        y = np.ascontiguousarray(chip.run(self.network, window))
        self.logits.append(y)
        ctypes.memmove(logits, y.ctypes.data, y.size)


@torch.inference_mode()
def expected(model, samples):
    """Features and logits, integers (C, N), and sources (S, T) of the model itself."""
    x = torch.from_numpy(samples).to(next(model.parameters()).dtype)[None]  # (1, T)
    frames, _ = model.bank.analyse(x, x.new_zeros(1, model.bank.overlap))
    features = model.bank.features(frames, model.compression)
    logits, _ = model.tcn.step(features, model.tcn.initial_state(1))
    y, _ = model.step(x[None], model.initial_state(1))
    grids = model.tcn.features, model.tcn.logits
    return (
        (grids[0](features) * 2.0 ** grids[0].exponent)[0].numpy(),
        (logits * 2.0 ** grids[1].exponent)[0].numpy(),
        y[0, :, 0].numpy(),
    )


def run(name, folder, real, seconds):
    """Run host.c and the model of that name; (microcontroller, its output, expected, host)."""
    model = calibrated(**MODELS[name])
    network = model.network()
    host = Host(model, plan(network, FRAMES[name]))
    dtype = {"double": np.float64, "float": np.float32}[real]
    micro = Microcontroller(host, network, compile_host(host, folder, real), dtype)
    runs = int(seconds * model.sample_rate) // host.sizes["SAMPLES"]
    samples = audio(seconds)[: runs * host.sizes["SAMPLES"]]
    y = micro.run(samples)
    wanted = expected(model.double() if real == "double" else model, samples)
    return micro, y, wanted, host


@pytest.mark.parametrize(
    ("name", "seconds"), [("learned", 10), ("stft", 10), ("three", 1), ("single", 1)]
)
def test_the_c_code_is_the_model_to_the_last_8_bit_feature_and_logit(tmp_path, name, seconds):
    micro, y, (features, logits, audio), _ = run(name, tmp_path, "double", seconds)
    np.testing.assert_array_equal(np.concatenate(micro.features, 1), features)
    np.testing.assert_array_equal(np.concatenate(micro.logits, 1), logits)
    np.testing.assert_allclose(y, audio, rtol=0, atol=1e-7)  # windows have single precision
    assert features.max() > 20  # or there would be nothing to compare
    assert np.ptp(logits) > 20


@pytest.mark.parametrize("name", ["learned", "stft"])
def test_in_single_precision_hardly_a_feature_differs_and_then_by_one(tmp_path, name):
    micro, y, (features, _, audio), _ = run(name, tmp_path, "float", 3)
    difference = np.abs(np.concatenate(micro.features, 1) - features)
    assert difference.max() <= 1
    assert difference.mean() < 1e-4
    error = 10 * np.log10(np.square(audio).mean() / np.square(y - audio).mean())
    assert error > 50  # dB


@pytest.mark.parametrize("name", list(MODELS))
def test_the_report_has_the_counted_multiplications_and_the_size_of_the_state(tmp_path, name):
    micro, _, _, host = run(name, tmp_path, "float", 0.2)
    frames = len(micro.features) * host.sizes["FRAMES"]
    assert micro.macs / frames == host.macs_per_frame
    assert micro.state_bytes == host.state_bytes


def test_the_code_needs_nothing_but_copying_memory(tmp_path):
    model = calibrated()
    compile_host(Host(model, plan(model.network(), 20)), tmp_path, "float")
    command = [shutil.which("cc"), "-std=c99", "-c", "host.c", "-o", "host.o"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    symbols = subprocess.run(
        [shutil.which("nm"), "-u", "host.o"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    needed = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert needed <= {"memcpy", "memmove", "memset", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}


def test_a_transform_that_is_no_power_of_two_is_refused():
    model = calibrated(transform="stft", kernel=96)
    with pytest.raises(SepcliError, match=r"96 samples, but host\.c needs a power of two"):
        Host(model, plan(model.network(), 2))
