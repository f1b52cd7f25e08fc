"""Whether a model is UL-UNAS: python3 compare.py ULUNAS.onnx MODEL.safetensors [SOUND.wav]

Runs the graph frame by frame in ONNX Runtime from states of zeros, and the model on the same
spectra, and prints the largest difference re the largest value. Needs the package onnxruntime.
"""

import sys

import numpy as np
import onnxruntime
import torch

import sepcli
from sepcli.audio import resample
from sepcli.models.modelfile import load_model

FRAMES = 300
LIMIT = 1e-4


def of_graph(path, spectrum):
    """What the graph makes of the spectrum (2, F, N), the same shape."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    _, *states = session.get_inputs()
    state = {x.name: np.zeros(x.shape, np.float32) for x in states}
    frames = []
    for frame in np.moveaxis(spectrum, 2, 0):  # (2, F)
        y, *after = session.run(None, {"mix": frame.T[None, :, None].copy(), **state})
        state = dict(zip(state, after, strict=True))
        frames.append(y[0, :, 0].T)
    return np.stack(frames, -1)


@torch.no_grad()
def main():
    graph, path, *sounds = sys.argv[1:]
    model, _ = load_model(path)
    if sounds:
        sound, rate = sepcli.read(sounds[0])
        sound = torch.from_numpy(resample(sound, rate, model.sample_rate)[:1])
    else:
        sound = 0.1 * torch.randn(1, FRAMES * model.hop, generator=torch.manual_seed(0))
        sound *= torch.linspace(0, 6, sound.shape[1]).sin().abs()
    spectrum = model.analyse(sound)[..., :FRAMES]
    parts = torch.cat([spectrum.real, spectrum.imag])[None]  # (1, 2, F, N)
    ours, _ = model.core(parts, model.core_state())
    theirs = of_graph(graph, parts[0].numpy())
    worst = float(np.abs(ours[0].numpy() - theirs).max() / np.abs(theirs).max())
    print(f"largest difference {worst:.1e} of the peak over {parts.shape[-1]} frames")
    if not worst < LIMIT:
        raise SystemExit(f"compare.py: {path} is not {graph}; the limit is {LIMIT}")


if __name__ == "__main__":
    main()
