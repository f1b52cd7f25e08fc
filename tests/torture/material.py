"""Small healthy files of every kind, of which mutants are made: {name: bytes}, made once."""

import functools
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from tests.samples import make_sample, to_tar
from tests.sounds import FORMATS, encoded, sound

RATE = 8000


@functools.cache
def sounds() -> dict[str, bytes]:
    """A tenth of a second in every format."""
    signal = sound(800, 2)
    found = {f"x.{name}": encoded(name, signal, RATE) for name in FORMATS if name != "ulaw.wav"}
    found["ulaw.wav"] = encoded("ulaw.wav", signal, RATE)
    for extension, subtype in (("wav", "FLOAT"), ("wav", "PCM_24"), ("aiff", "FLOAT")):
        stream = io.BytesIO()
        soundfile.write(stream, signal.T, RATE, subtype, format=extension.upper())
        found[f"{subtype.lower()}.{extension}"] = stream.getvalue()
    return found


RARE = ("AVR", "HTK", "IRCAM", "MAT4", "MAT5", "MPC2K", "NIST", "PAF", "PVF", "SDS", "SVX", "VOC")


@functools.cache
def rare_sounds() -> dict[str, bytes]:
    """A tenth of a second in every format that hardly anybody has."""
    found = {}
    for container, subtype in [*((each, "PCM_16") for each in RARE), ("WVE", "ALAW")]:
        stream = io.BytesIO()
        soundfile.write(stream, sound(800, 1).T, RATE, subtype, format=container)
        found[f"x.{container.lower()}"] = stream.getvalue()
    return found


@functools.cache
def ogg_sounds() -> dict[str, bytes]:
    return {name: data for name, data in sounds().items() if name.endswith(("ogg", "opus"))}


@functools.cache
def foreign_sounds() -> dict[str, bytes]:
    """A tenth of a second as FFmpeg writes it, for the package av."""
    import av

    found = {}
    for container, codec in (
        ("mp4", "aac"),
        ("webm", "libopus"),
        ("wv", "wavpack"),
        ("tta", "tta"),
    ):
        stream = io.BytesIO()
        with av.open(stream, "w", format=container if container != "wv" else "wv") as out:
            track = out.add_stream(codec, rate=48000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(sound(4800, 2), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48000, 0
            resampler = av.AudioResampler(track.format, "stereo", 48000, track.frame_size or 1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                out.mux(track.encode(piece))
        found[f"x.{'m4a' if container == 'mp4' else container}"] = stream.getvalue()
    return found


@functools.cache
def tars() -> dict[str, bytes]:
    """Streams of samples as sepcli writes them, and archives as `tar` does."""
    import tarfile

    roles = ("mix", "ref.speech", "est.speech")
    ours = to_tar([make_sample(0, roles=roles), make_sample(1, roles=roles, snr_db=3.0)])
    found = {"samples.tar": ours}
    for name, form in (("gnu.tar", tarfile.GNU_FORMAT), ("pax.tar", tarfile.PAX_FORMAT)):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for key in ("a", "folder/" * 20 + "ü", "b"):
                for member in ("json", "mix.wav"):
                    content = b'{"x": 1}' if member == "json" else sounds()["x.wav"]
                    info = tarfile.TarInfo(f"{key}.{member}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        found[name] = stream.getvalue()
    return found


@functools.cache
def lists() -> dict[str, bytes]:
    """JSON lines for `mix`, `pack` and `eval`; the files that they name are `RECORDINGS`."""
    pairs = [
        {"key": f"k{n}", "mix": "a.wav", "ref": {"speech": "a.wav"}, "est": {"speech": "b.wav"}}
        for n in range(2)
    ]
    return {
        "paths.jsonl": b'{"path": "a.wav"}\n{"path": "b.wav"}\n',
        "pairs.jsonl": b"\n".join(json.dumps(each).encode() for each in pairs),
        "report.json": _report(),
    }


def _report():
    """An earlier report, for `eval --compare`."""
    statistic = {"count": 1, "mean": 1.0, "median": 1.0}
    row = {"key": "k0", "target": "speech", "si_sdr_db": 1.0}
    return json.dumps(
        {"items": [row], "summary": {"speech": {"si_sdr_db": statistic}}, "failed": []}
    ).encode()


@functools.cache
def recordings() -> dict[str, bytes]:
    return {
        f"{name}.wav": encoded("wav", sound(2000, 1, 300 + n), RATE) for n, name in enumerate("ab")
    }


@functools.cache
def configs() -> dict[str, bytes]:
    """Configurations of every kind of model and data that needs no recordings."""
    from tests.models import GRID, TINY

    settings = [(name, dict(each)) for name, each in (*TINY[:3], *TINY[4:6], TINY[7], TINY[9])]
    settings.append(("usef_gridnet", GRID))
    found = {}
    for number, (name, each) in enumerate(settings):
        model = {"name": name, **json.loads(json.dumps(each))}
        data = {"kind": "toy", "items": 4, "duration_s": 0.1}
        train = {"steps": 2, "batch": 1, "lr": 0.001, "warmup": 1, "validate_every": 2}
        tree = {"model": model, "data": {"train": data, "valid": data}, "train": train}
        found[f"{number}.yaml"] = json.dumps(tree, indent=1).encode()
    return found


@functools.cache
def packs() -> dict[str, bytes]:
    """Packs of recordings and of samples, in every encoding."""
    from sepcli.recordings.packing import Packing, PackSpec, Source

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, data in recordings().items():
            paths.append(Path(folder, name))
            paths[-1].write_bytes(data)
        Path(folder, "s.tar").write_bytes(tars()["samples.tar"])
        source = Source("speech", "some", list(map(str, paths)), list(recordings()))
        for dtype in ("int16", "flac"):
            packing = Packing([source], spec=PackSpec(dtype=dtype))
            list(packing.run(Path(folder, f"{dtype}.h5")))
        list(Packing([], [str(Path(folder, "s.tar"))]).run(Path(folder, "samples.h5")))
        for path in Path(folder).glob("*.h5"):
            found[path.name] = path.read_bytes()
    return found


@functools.cache
def models() -> dict[str, bytes]:
    """Model files of small random weights, one of them quantised in its card."""
    import torch

    from sepcli.models import build, modelfile
    from tests.models import GRID, OFFLINE, TINY

    found = {}
    chosen = [
        TINY[1],
        TINY[4],
        TINY[7],
        TINY[9],
        TINY[11],
        OFFLINE[0],
        OFFLINE[2],
        ("usef_gridnet", GRID),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, settings) in enumerate(chosen):
            torch.manual_seed(0)
            path = Path(folder, f"{number}.safetensors")
            card = {"licence": "MIT", "train": {"steps": 3}, "scores": {"si_sdr_db": 1.0}}
            modelfile.save(path, name, settings, build(name, **settings).state_dict(), card)
            found[path.name] = path.read_bytes()
    return found


def _open_unmix_state():
    import torch

    from sepcli.models import build

    torch.manual_seed(0)
    settings = {"sources": ("vocals", "accompaniment"), "residual": True}
    model = build("open_unmix", window=64, hop=16, hidden=4, layers=1, **settings)
    before = "networks.vocals."
    state = {k.removeprefix(before): v for k, v in model.state_dict().items()}
    return {k: v for k, v in state.items() if "." in k or k.startswith(("input", "output"))}


@functools.cache
def open_unmix() -> dict[str, bytes]:
    """A folder of Open-Unmix; archives of today's torch and of before."""
    import torch

    about = {"nfft": 64, "nhop": 16, "sample_rate": 44100, "nb_channels": 2}
    found = {"separator.json": json.dumps(about).encode()}
    for name, archive in (("vocals.pth", True), ("old.pth", False)):
        stream = io.BytesIO()
        torch.save(_open_unmix_state(), stream, _use_new_zipfile_serialization=archive)
        found[name] = stream.getvalue()
    return found


@functools.cache
def msst() -> dict[str, bytes]:
    """A checkpoint of Music-Source-Separation-Training and its settings."""
    from tests.test_msst import make

    with tempfile.TemporaryDirectory() as folder:
        path, _ = make(Path(folder, "m"), "scnet", "state_dict")
        return {"m.ckpt": path.read_bytes(), "m.yaml": path.with_suffix(".yaml").read_bytes()}


@functools.cache
def demucs() -> dict[str, bytes]:
    """Weights of Demucs, and a bag of them."""
    from tests.test_demucs import network, save_th

    with tempfile.TemporaryDirectory() as folder:
        path = save_th(Path(folder, "x"), *network("HDemucs"))
        bag = {"models": ["x", "x"], "weights": [[1.0, 0.0], [0.0, 1.0]]}
        return {path.name: path.read_bytes(), "bag.yaml": json.dumps(bag).encode()}


@functools.cache
def checkpoints() -> dict[str, bytes]:
    """A checkpoint of `sepcli train`."""
    import torch

    stream = io.BytesIO()
    torch.save({"step": 3, "model": {"w": torch.zeros(10)}, "random": [1, 2.0, None, "x"]}, stream)
    return {"last.ckpt": stream.getvalue()}


@functools.cache
def graphs() -> dict[str, bytes]:
    """Graphs as small as can be, with what `sepcli export` says in those that it makes."""
    stft = {"window": [1.0] * 8, "synthesis_window": [0.5] * 8, "stride": 4}
    waveform = {"front_end": "waveform", "hop": 4, "delay": 0, "states": [[1, 2]], "conditions": 0}
    streaming = {"kind": "streaming", "hops": None, "consistent": False, **waveform}
    offline = {**waveform, "kind": "offline", "length": None, "states": []}
    fixed = {**offline, "length": 1000}
    spectral = {**streaming, "front_end": "stft", "stft": stft, "delay": 4}
    forms = {"streaming": streaming, "offline": offline, "fixed": fixed, "spectral": spectral}
    return {f"{name}.onnx": _graph(about) for name, about in forms.items()}


@functools.cache
def programs() -> dict[str, bytes]:
    """A program of torch.export as small as can be, with what `sepcli export` says in it."""
    import torch

    from sepcli.graphs.programs import write_program

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor([0.5]))

        def forward(self, x):
            return (x * self.gain)[:, None]

    length = {2: torch.export.Dim("T", min=1)}
    made = torch.export.export(Scaled(), (torch.zeros(1, 1, 8),), dynamic_shapes={"x": length})
    about = {"format": 1, "kind": "offline", "model": "x", "sha256": "0" * 64, "channels": 1}
    about |= {"sample_rate": RATE, "sources": ["speech"], "hop": 4, "length": None}
    about |= {"front_end": "waveform", "conditions": 0, "card": {}, "settings": {}}
    with tempfile.TemporaryDirectory() as folder:
        write_program(Path(folder, "x.pt2"), made, about)
        return {"x.pt2": Path(folder, "x.pt2").read_bytes()}


def _graph(about):
    """The bytes of a graph that gives its input, and counts in its states."""
    from onnx import TensorProto, helper

    known = {"format": 1, "model": "x", "sha256": "0" * 64, "sample_rate": RATE, "channels": 1}
    known |= {"sources": ["speech"], "card": {}, "settings": {}, **about}
    spectral = about["front_end"] == "stft"
    shapes = (["B", 2, 5, "N"], ["B", 2, 5, "N"]) if spectral else (["B", 1, "T"], ["B", 1, 1, "T"])
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if not spectral:
        nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["y"])]
    inputs, outputs = [("x", shapes[0])], [("y", shapes[1])]
    if about["states"]:
        nodes.append(helper.make_node("Add", ["state0", "one"], ["next0"]))
        inputs.append(("state0", ["B", 2]))
        outputs.append(("next0", ["B", 2]))
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each]
        for each in (inputs, outputs)
    ]
    weights = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    graph = helper.make_graph(nodes, "x", *values, weights)
    opset = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=9)
    helper.set_model_props(made, {"sepcli": json.dumps(known)})
    return made.SerializeToString()


@functools.cache
def uploads() -> dict[str, bytes]:
    """Bodies of requests to `sepcli serve`."""
    from tests.serving import multipart

    fields = [("model", "tiny"), ("target", "speech"), ("format", "flac"), ("residual", "true")]
    wav, flac = sounds()["x.wav"], sounds()["x.flac"]
    return {
        "plain": multipart([("file", wav, "a.wav")])[0],
        "all": multipart([*fields, ("file", flac, "ü/a.flac")])[0],
    }


def loaded() -> object:
    """A small model, loaded."""
    from sepcli.inference.loading import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.safetensors")
        path.write_bytes(models()["1.safetensors"])
        return load(path)


def noise(frames=400, channels=1):
    """Float32 (C, T), to run what loaded on."""
    return 0.1 * np.random.default_rng(0).standard_normal((channels, frames), np.float32)
