"""Pictures of what a network attends to, with matplotlib, which is loaded when they are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepcli.errors import SepcliError
from sepcli.inference.stream import batched, check_channels
from sepcli.layers.tfswa import attention_maps, has_attention
from sepcli.models.modelfile import load_model
from sepcli.recordings import stored
from sepcli.rirs.plots import save

SECONDS = 3.0  # of the middle of a song
COLUMNS = 4  # kinds of attention at most


def draw(name: str | Path, song: str | Path, path: str | Path) -> dict[str, Any]:
    """Write a picture of the attention maps of the model `name` for the middle of `song`.

    A row for each level's last block: over time, over frequency, in windows. Rows of a map are what
    attends, columns what is attended to; each map has its own scale. Returns what was drawn, for
    JSON. Raises SepcliError for a model without attention, and where matplotlib is missing.
    """
    model, _ = load_model(name)
    if not has_attention(model):
        raise SepcliError(f"{name}: has no attention maps; only tfswa models have")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SepcliError("--attention needs matplotlib; pip install 'sepcli[plot]'") from None
    x, start_s = _middle(song, model)
    maps = attention_maps(model, x)
    blocks = list(dict.fromkeys(key.split("/")[1] for key in maps))
    size = (3 * COLUMNS, 2.6 * len(blocks))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(blocks), COLUMNS, squeeze=False)
    for row, block in zip(axes, blocks, strict=True):
        shown = [(key, value) for key, value in maps.items() if key.split("/")[1] == block]
        for place in row[len(shown) :]:
            place.set_axis_off()
        for place, (key, value) in zip(row, shown, strict=False):
            place.imshow(value.numpy(), cmap="magma", aspect="auto", interpolation="nearest")
            place.set_title(key.removeprefix("attention/"), fontsize="small")
    figure.suptitle(f"{Path(song).name}, {start_s:.1f} to {start_s + SECONDS:.1f} s")
    save(path, figure)
    return {"file": str(path), "song": str(song), "start_s": start_s, "maps": len(maps)}


def _middle(song: str | Path, model: Any) -> tuple[torch.Tensor, float]:
    """The middle of a song as the model takes it, (1, C, T), and where that begins, in s."""
    frames, rate = stored.header(song)
    start = max(0, round(frames / 2 - SECONDS * rate / 2))
    stop = min(frames, start + round(SECONDS * rate))
    audio, _ = stored.read(song, start=start, stop=stop, sample_rate=model.sample_rate)
    check_channels(model.channels, len(audio))
    x = batched(np.ascontiguousarray(audio, np.float32), model.channels)
    return torch.from_numpy(x)[:1], start / rate
