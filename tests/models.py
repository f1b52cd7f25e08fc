"""Small forms of every model, for the tests of models and of what runs them."""

import torch

from sepcli.models import build

SPEAKER = {
    "window": 64,
    "hop": 32,
    "width": 8,
    "hidden": 6,
    "layers": 2,
    "keys": 4,
    "values": 4,
    "heads": 2,
    "embedding": 6,
    "bottleneck": 5,
    "encoder_bands": 8,
    "encoder_channels": 6,
    "encoder_blocks": 2,
    "learn_encoder": True,
}

UNAS_BANDS = {
    "bins": 9,
    "bands": 8,
    "encoder": (
        ("plain", 4, 3, 3, 2),
        ("bottleneck", 8, 2, 3, 2),
        ("separable", 8, 2, 3, 1),
        ("bottleneck", 8, 1, 5, 1),
    ),
    "repeats": 1,
}
UNAS = UNAS_BANDS | {"window": 64, "hop": 32}

BANDS = {
    "bands": ((4, 2), (4, 6)),
    "span": 8,
    "channels": 6,
    "hidden": 5,
    "layers": 2,
    "mixed": 7,
    "full_width": 8,
    "full_hidden": 6,
    "full_blocks": 3,
    "full_repeats": 1,
}

TINY = [  # name, settings; every causal model in MODELS is here at least once
    (
        "conv_tasnet",
        {"filters": 16, "bottleneck": 8, "hidden": 12, "skip": 8, "blocks": 3, "repeats": 2},
    ),
    (
        "conv_tasnet",
        {
            "filters": 8,
            "kernel": 20,
            "bottleneck": 8,
            "hidden": 6,
            "skip": 0,
            "norm": "cln",
            "repeats": 1,
        },
    ),
    ("conv_tasnet", {"filters": 64, "init": "pr", "blocks": 2, "repeats": 1, "norm_first": True}),
    (
        "spectral_tasnet",
        {"window": 96, "hop": 32, "width": 8, "hidden": 12, "blocks": 3, "repeats": 1},
    ),
    (
        "spectral_tasnet",
        {"window": 64, "hop": 32, "width": 8, "hidden": 8, "norm": "cln", "repeats": 1},
    ),
    (
        "spectral_tasnet",
        {"sources": ("speech",), "width": 8, "hidden": 8, "blocks": 2, "repeats": 1},
    ),
    (
        "spectral_tasnet",
        {
            "window": 64,
            "hop": 32,
            "width": 8,
            "hidden": 6,
            "blocks": 3,
            "repeats": 1,
            "dense": True,
            "mask": "complex",
        },
    ),
    (
        "dmgtcm_unet",
        {
            "window": 64,
            "hop": 32,
            "width": 6,
            "levels": 3,
            "tcm_width": 8,
            "tcm_hidden": 6,
            "blocks": 3,
        },
    ),
    (
        "dmgtcm_unet",
        {
            "sources": ("speech",),
            "window": 96,
            "hop": 32,
            "width": 4,
            "levels": 2,
            "padding": 0,
            "tcm_width": 6,
            "tcm_hidden": 4,
            "tcm_kernel": 3,
            "blocks": 2,
            "repeats": 1,
            "mask": True,
            "compression": 0.3,
        },
    ),
    ("band_lstm", BANDS | {"window": 64, "hop": 32}),
    ("speaker_lstm", SPEAKER),
    ("speaker_lstm", SPEAKER | {"listen": False, "neighbours": 9}),
    ("ul_unas", UNAS),
    ("unas_lstm", {"window": 64, "hop": 32, "lstm": BANDS, "unas": UNAS_BANDS}),
    (
        "tcn_max78000",
        {"filters": 12, "kernel": 20, "width": 8, "hidden": 6, "dilations": (1, 4)},
    ),
    (
        "tcn_max78000",
        {"transform": "stft", "kernel": 64, "width": 8, "hidden": 6, "dilations": (2, 1, 8)},
    ),
]

GRID = {
    "sample_rate": 16000,
    "n_fft": 128,
    "window": 96,
    "hop": 48,
    "bands": 6,
    "features": 8,
    "hidden": 6,
    "heads": 2,
    "blocks": 2,
    "reinject": (1,),
}

TFSWA = {
    "window": 128,
    "hop": 32,
    "dims": (4, 8),
    "depths": (2, 2),
    "heads": 2,
    "tile": 4,
    "shift": 2,
    "expansion": 2,
}

RESUNET = {
    "window": 128,
    "hop": 32,
    "dims": (4, 8),
    "blocks": 1,
    "heads": 2,
    "tile": (3, 2),
}

OFFLINE = [  # likewise, models that need the whole signal
    ("deep_unet", {"window": 128, "hop": 32, "bins": 32, "widths": (4, 6, 6), "last": 2}),
    (
        "deep_unet",
        {
            "sources": ("vocals",),
            "window": 64,
            "hop": 16,
            "bins": 32,
            "widths": (4,),
            "last": 1,
        },
    ),
    (
        "mask_unet",
        {
            "window": 128,
            "hop": 32,
            "bins": 32,
            "widths": (4, 6, 6),
            "middle": 8,
            "dilations": (1, 2),
        },
    ),
    (
        "mask_unet",
        {
            "sources": ("vocals",),
            "window": 64,
            "hop": 16,
            "bins": 32,
            "widths": (4,),
            "middle": 8,
            "dilations": (),
        },
    ),
    ("open_unmix", {"window": 128, "hop": 32, "hidden": 8, "layers": 2}),
    (
        "open_unmix",
        {
            "sources": ("drums", "bass", "vocals"),
            "residual": False,
            "channels": 1,
            "window": 64,
            "hop": 32,
            "hidden": 6,
            "layers": 1,
            "bidirectional": False,
            "mask": False,
        },
    ),
    ("open_unmix", {"window": 64, "hop": 16, "hidden": 5, "layers": 0, "bandwidth_hz": 4000.0}),
    ("tfswa_resunet", RESUNET),
    ("tfswa_resunet", RESUNET | {"sources": ("drums", "bass"), "channels": 1, "window": 64}),
    ("tfswa_unet", TFSWA),
    ("tfswa_unet", TFSWA | {"depths": (1, 1, 1), "dims": (4, 8, 8), "block": "residual"}),
    (
        "tfswa_unet",
        TFSWA
        | {"sources": ("vocals", "drums", "bass", "other"), "channels": 1, "position": True}
        | {"patch": (1, 4), "multiscale": True, "checkpointing": True},
    ),
    ("tfswa_unet", TFSWA | {"output": "spectrum", "patch": (2, 1)}),
    ("usef_gridnet", GRID),
    ("usef_gridnet", GRID | {"sources": ("speech", "rest"), "block": "full", "film": False}),
]
EVERY = TINY + OFFLINE

FEWER = {  # than the first form of each has: what tracing takes seconds for
    "band_lstm": {"span": 9, "bands": ((4, 8),), "layers": 1, "full_blocks": 1},
    "conv_tasnet": {"blocks": 1, "repeats": 1},
    "deep_unet": {"widths": (4,), "last": 1},
    "dmgtcm_unet": {"levels": 2, "blocks": 1, "repeats": 1},
    "mask_unet": {"widths": (4,), "dilations": (1,)},
    "open_unmix": {"window": 64, "hop": 16, "hidden": 6, "layers": 1},
    "speaker_lstm": {"encoder_blocks": 1},
    "spectral_tasnet": {"blocks": 1},
    "tcn_max78000": {"dilations": (1,)},
    "tfswa_resunet": {"dims": (4,)},
    "tfswa_unet": {"dims": (4,), "depths": (1,)},
    "ul_unas": {"encoder": UNAS["encoder"][:2]},
    "unas_lstm": {
        "lstm": BANDS | {"layers": 1, "full_blocks": 1},
        "unas": UNAS_BANDS | {"encoder": UNAS["encoder"][:1]},
    },
    "usef_gridnet": {"blocks": 1, "reinject": ()},
}
SMALLEST = {name: first | FEWER.get(name, {}) for name, first in reversed(EVERY)}


def made(name, settings):
    """A model, with the condition of some noise where it needs one."""
    return complete(build(name, **settings))


def complete(model):
    """The model, with the condition of some noise, always the same, where it needs one."""
    if not model.conditioned:
        return model
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(1, model.channels, 900, generator=generator)
    return model.given(model.condition([reference.to(next(model.parameters()).dtype)]))


def randomise(model):
    """Move parameters and running statistics off their start, so that no layer is the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(0.3 * torch.rand_like(buffer))
    return model.eval()
