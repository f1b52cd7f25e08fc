"""Vocoders: from the mel bands of a source to its sound, without the phase of the mixture.

A vocoder is a callable with the attribute `bands`: it is given the natural logarithm of the bands'
magnitudes, not below log(1e-5), float32 (B, bands, N), and the number of samples T wanted, and
returns float32 (B, T). Bands are those of `nn.mel`, frames those of the separating model's
transform, as is the sample rate; so a vocoder belongs to a geometry. It may be a Python callable or
an ONNX graph with one input (B, bands, N) and one output of B rows of samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepcli import files
from sepcli.errors import SepcliError

FLOOR = 1e-5  # as HiFi-GAN has it
MEL = "mel"  # the vocoder that is none: magnitudes from the bands, then any phase
MEL_BANDS = 128


class OnnxVocoder:
    """The graph `path` as a vocoder; raises SepcliError."""

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        self.path = path
        files.check_meant(path)
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a type of its own for every reason
            reason = " ".join(str(error).split())[:120]
            raise SepcliError(f"{path}: not an ONNX graph that can be run ({reason})") from None
        shapes = [node.shape for node in self._session.get_inputs()]
        if len(shapes) != 1 or len(shapes[0]) != 3 or not isinstance(shapes[0][1], int):
            raise SepcliError(
                f"{path}: not a vocoder, its inputs are {shapes}; "
                "expected one, (batch, bands, frames)"
            )
        self.bands = shapes[0][1]

    def __call__(self, mel, length):
        name = self._session.get_inputs()[0].name
        y = self._session.run(None, {name: mel.cpu().numpy()})[0].reshape(len(mel), -1)
        y = np.pad(y[:, :length], ((0, 0), (0, max(0, length - y.shape[1]))))
        return torch.from_numpy(y).to(mel.device)


def find_vocoder(vocoder: Any) -> Any:
    """The vocoder that is meant: a callable itself, or that of an ONNX file; None of `MEL`."""
    if vocoder in (None, MEL):
        return None
    return vocoder if callable(vocoder) else OnnxVocoder(str(vocoder))
