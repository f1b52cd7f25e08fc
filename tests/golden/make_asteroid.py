"""Make asteroid_causal_cln.npz: weights and an answer of the causal TDConvNet of asteroid 0.7.0.

asteroid's own dependencies clash with current releases, so only the network's file is loaded:

    python -m venv v && v/bin/pip install torch numpy scipy requests huggingface_hub
    v/bin/pip install --no-deps asteroid==0.7.0 asteroid-filterbanks==0.4.0
    v/bin/python tests/golden/make_asteroid.py
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch

spec = importlib.util.find_spec("asteroid")
package = types.ModuleType("asteroid")  # skip asteroid/__init__.py, which imports everything
package.__path__ = list(spec.submodule_search_locations)
sys.modules["asteroid"] = package
from asteroid.masknn.convolutional import TDConvNet  # noqa: E402

torch.manual_seed(0)
net = TDConvNet(
    8,
    2,
    n_blocks=3,
    n_repeats=2,
    bn_chan=6,
    hid_chan=10,
    skip_chan=7,
    norm_type="cLN",
    mask_act="sigmoid",
    causal=True,
)
with torch.no_grad():
    for parameter in net.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))  # so that no norm is the identity
    frames = torch.rand(2, 8, 50)
    masks = net(frames)
weights = {f"weight:{k}": v.numpy() for k, v in net.state_dict().items()}
target = Path(__file__).with_name("asteroid_causal_cln.npz")
np.savez_compressed(target, frames=frames.numpy(), masks=masks.numpy(), **weights)
