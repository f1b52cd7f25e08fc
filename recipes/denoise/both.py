"""Two networks in one file: a `band_lstm` made smaller, and a `ul_unas` beside it.

    python3 both.py LSTM.safetensors UNAS.safetensors OUT.safetensors SOUNDS...

The hidden channels of each block of the first one's full-band part are thinned out until the two
have fewer than a million parameters: which ones go, and how the others make up for them, is what
least squares on noisy SOUNDS say (Hassibi & Stork, "Second order derivatives for network pruning:
Optimal Brain Surgeon", NeurIPS 1992). OUT is in 16-bit floats.
"""

import math
import sys

import torch

import sepcli
from sepcli.audio import resample
from sepcli.models import build, modelfile
from sepcli.models.modelfile import load_model

SECONDS, SOUNDS = 4, 64
WIDTH = 92  # hidden channels that are left
SHARED = ("sources", "sample_rate", "window", "hop")  # settings of both
DAMPING = 1e-4  # re the mean power of the channels
SHARE = 0.38  # of the first in the gains; chosen on other voices and noises than those of the card
LICENCE = (
    "MIT. It has weights of UL-UNAS (MIT, Copyright (c) 2026 Xiaobin-Rong). The recordings it "
    "learned from have licences of their own and are not part of it."
)


def surgeon(weight, gram, keep):
    """The `keep` inputs that matter of a linear map (outputs, inputs), and their new weights.

    gram: mean products of the inputs.
    """
    damping = DAMPING * gram.diagonal().mean() * torch.eye(len(gram)).double()
    inverse = torch.linalg.inv(gram + damping)
    weight, alive = weight.double().clone(), torch.ones(len(gram), dtype=torch.bool)
    for _ in range(len(gram) - keep):
        cost = weight.square().sum(0) / inverse.diagonal()
        worst = int(torch.where(alive, cost, torch.inf).argmin())
        column = inverse[:, worst] / inverse[worst, worst]
        weight -= weight[:, worst, None] * column
        inverse -= inverse[worst, :] * column[:, None]
        alive[worst] = False
        weight[:, worst] = 0
        inverse[worst, worst] = 1
    return alive.nonzero()[:, 0], weight[:, alive].float()


def hidden_of(model, block, sounds):
    """Mean products of the hidden channels of a block, and of a 1, while the model hears sounds."""
    total = 0
    hook = block.depthwise.register_forward_hook(lambda _, __, y: seen.append(y))
    for sound in sounds:
        seen = []
        model(sound)
        rows = seen[0].transpose(1, 2).flatten(0, 1).double()
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        total = total + rows.T @ rows / len(rows)
    hook.remove()
    return total / len(sounds)


@torch.no_grad()
def thinned(model, width, sounds):
    """The weights of `model` with `width` hidden channels in each block of the full-band part."""
    new = dict(model.state_dict())
    for n, block in enumerate(model.full.tcn.blocks):
        gram = hidden_of(model, block, sounds)
        mean = gram[:-1, -1]
        gram = gram[:-1, :-1] - mean[:, None] * mean
        weight, bias = block.residual.weight[:, :, 0], block.residual.bias
        kept, less = surgeon(weight, gram, width)
        offset = bias + (weight @ mean.float()) - less @ mean[kept].float()
        name = f"full.tcn.blocks.{n}"
        for part in ("expand.0.weight", "expand.0.bias", "depthwise.0.weight", "depthwise.0.bias"):
            new[f"{name}.{part}"] = new[f"{name}.{part}"][kept]
        new[f"{name}.residual.weight"], new[f"{name}.residual.bias"] = less[..., None], offset
        whole = torch.zeros_like(weight)
        whole[:, kept] = less
        block.residual.weight.copy_(whole[..., None])  # what follows hears the new one
        block.residual.bias.copy_(offset)
    return new


def heard(path, rate):
    """The first seconds of a file, (1, 1, T)."""
    sound, found = sepcli.read(path)
    sound = torch.from_numpy(resample(sound, found, rate)[:1])
    return sound[None, :, : SECONDS * rate]


def main():
    old, other, out, *sounds = sys.argv[1:]
    large, card = load_model(old)
    width = min(WIDTH, large.full.tcn.blocks[0].residual.in_channels)
    lstm = {name: value for name, value in card.settings.items() if name not in SHARED}
    settings = {"lstm": lstm | {"full_hidden": width}}
    model = build("unas_lstm", **settings)
    model.unas.load_state_dict(load_model(other)[0].state_dict())
    sounds = [heard(path, model.sample_rate) for path in sounds[:SOUNDS]]
    model.lstm.load_state_dict(thinned(large, width, sounds))
    with torch.no_grad():
        model.share.fill_(math.log(SHARE / (1 - SHARE)))
    weights = {name: x.half() for name, x in model.state_dict().items()}
    modelfile.save(out, "unas_lstm", settings, weights, {"name": "denoise", "licence": LICENCE})


if __name__ == "__main__":
    main()
