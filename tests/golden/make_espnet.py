"""Make espnet_gridnet.npz: weights and answers of the GridNetBlock of espnet 202511.

espnet has many dependencies, of which its separator's file needs two:

    python -m venv v && v/bin/pip install torch numpy torch_complex typeguard packaging
    v/bin/pip install --no-deps espnet==202511
    v/bin/python tests/golden/make_espnet.py
"""

from pathlib import Path

import numpy as np
import torch
from espnet2.enh.separator.tfgridnet_separator import GridNetBlock

SIZES = {"plain": (1, 1), "windows": (4, 2)}  # kernel and stride of the LSTMs
BANDS, FEATURES, HIDDEN, HEADS, KEYS = 7, 8, 5, 2, 24
golden = {}
for name, (kernel, stride) in SIZES.items():
    torch.manual_seed(0)
    block = GridNetBlock(
        FEATURES,
        kernel,
        stride,
        BANDS,
        HIDDEN,
        n_head=HEADS,
        approx_qk_dim=KEYS,
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # so that no norm is the identity
        x = torch.randn(2, FEATURES, 9, BANDS)  # (B, D, N, K)
        golden[f"{name}:x"], golden[f"{name}:y"] = x.numpy(), block(x).numpy()
    for key, value in block.state_dict().items():
        golden[f"{name}:weight:{key}"] = value.numpy()
np.savez_compressed(Path(__file__).with_name("espnet_gridnet.npz"), **golden)
