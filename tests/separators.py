"""A small separator, and what goes into it."""

import numpy as np
import torch
from click.testing import CliRunner

from sepcli import audio
from sepcli.cli import main
from sepcli.inference.separate import Separator
from sepcli.models import build, modelfile
from sepcli.samples.streams import Sample
from tests.models import randomise

NAME, SETTINGS = "spectral_tasnet", {"width": 8, "hidden": 8, "blocks": 2, "repeats": 1}


def noise(channels, length, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, length), np.float32)


def tiny():
    """A separator of small random weights, the same every time."""
    torch.manual_seed(0)
    return Separator(randomise(build(NAME, **SETTINGS)))


def save_tiny(path):
    """The model of `tiny` as a file."""
    modelfile.save(path, NAME, SETTINGS, tiny().model.state_dict(), {})
    return str(path)


def vocoder_file(path, bands, frames="N"):
    """An ONNX graph that gives the mean of its bands, once a frame."""
    from onnx import TensorProto, helper, save

    shape = ["B", bands, frames]
    node = helper.make_node("ReduceMean", ["mel", "axis"], ["y"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "mean",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", frames])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save(made, path)
    return str(path)


def invoke(*args, **kwargs):
    return CliRunner().invoke(main, ["separate", *map(str, args)], **kwargs)


def sample(index, length=2000, rate=16000):
    made = Sample(f"{index:06d}", {"sample_rate": rate, "targets": ["speech"]})
    made.set_audio("mix", noise(1, length, seed=index))
    made.set_audio("ref.speech", noise(1, length, seed=index + 100))
    made.members["note.txt"] = b"kept"
    return made


def write_model(path, separator):
    modelfile.save(path, NAME, SETTINGS, separator.model.state_dict(), {})
    return str(path)


def write_track(path):
    audio.write(path, noise(2, 5000), 44100)
    return path


def assert_alike(theirs, ours, length_s):
    """Two separators give the same for a signal of `length_s`, or of any length where it is None.

    Returns both, with the recording of a speaker where they extract one, that and the signal.
    """
    reference = noise(1, theirs.sample_rate // 3, seed=1)
    if theirs.conditioned:
        theirs, ours = (each.given([reference], theirs.sample_rate) for each in (theirs, ours))
    audio = noise(2, 2000 if length_s is None else round(length_s * ours.sample_rate), seed=2)
    expected = theirs.separate(audio, theirs.sample_rate)
    for source, y in ours.separate(audio, ours.sample_rate).items():
        np.testing.assert_allclose(y, expected[source], rtol=0, atol=1e-4)
    return theirs, ours, reference, audio
