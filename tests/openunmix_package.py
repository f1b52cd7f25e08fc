"""The modules of the package openunmix, without its __init__, which needs torchaudio's binaries."""

import sys
from importlib import import_module, util
from types import ModuleType
from unittest.mock import patch


def openunmix(name):
    """The module `name` of openunmix, such as "model"."""
    alone = ModuleType("openunmix_alone")
    alone.__path__ = util.find_spec("openunmix").submodule_search_locations
    sys.modules.setdefault("openunmix_alone", alone)
    with patch.dict(sys.modules, {"torchaudio": ModuleType("torchaudio")}):
        module = import_module(f"openunmix_alone.{name}")
        sys.modules[module.__name__] = module
    return module
