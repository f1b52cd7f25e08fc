"""A mean of the weights of models: python3 average.py OUT.safetensors MODEL.safetensors[=SHARE]...

Between what a network was and what it has learned, it does better than at either end (Wortsman et
al., "Robust fine-tuning of zero-shot models", CVPR 2022). Without shares, all count the same. The
mean is in 16-bit floats, and has the card of the last model.
"""

import sys

from safetensors.torch import load_file

from sepcli.models import modelfile

out, *given = sys.argv[1:]
parts = [(path, float(share or 1)) for path, _, share in (each.partition("=") for each in given)]
total = sum(share for _, share in parts)
found = [(load_file(path), share / total) for path, share in parts]
mean = {name: sum(w[name].float() * share for w, share in found) for name in found[0][0]}
card = modelfile.read_card(parts[-1][0])
modelfile.save(out, card.model, card.settings, {n: x.half() for n, x in mean.items()}, card.card)
