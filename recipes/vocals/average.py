"""The mean of the weights of models: python3 average.py OUT.safetensors MODEL.safetensors...

Half-way between what a network was and what it has learned, it does better than at either end
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). The mean is in 16-bit
floats.
"""

import sys

from safetensors.torch import load_file

from sepcli.models import modelfile

out, *paths = sys.argv[1:]
found = [load_file(path) for path in paths]
mean = {name: sum(weights[name].float() for weights in found) / len(found) for name in found[0]}
card = modelfile.read_card(paths[-1])
modelfile.save(out, card.model, card.settings, {n: x.half() for n, x in mean.items()}, card.card)
