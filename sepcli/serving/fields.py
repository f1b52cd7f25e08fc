"""What is asked for with an upload: the fields of the form, checked before any work."""

from typing import Any

from sepcli.serving.settings import MOST_REFERENCES, RequestError
from sepcli.serving.uploads import Form

FORMATS = {  # of stems, and the sample formats that they may have
    "wav": ("FLOAT", "PCM_16", "PCM_24"),
    "flac": ("PCM_24", "PCM_16"),
    "mp3": (None,),
    "ogg": (None,),
}
KINDS = {  # the source that a model is chosen by, and whether it is the only one that is wanted
    "separate": ("vocals", False),
    "enhance": ("speech", True),
    "extract": ("speech", True),
}
FIELDS = ("model", "target", "residual", "format", "subtype", "views")
FILES = ("file", "reference")


def default_model(kind: str, facts: dict[str, Any]) -> str:
    """The model that does this unless told otherwise; RequestError where there is none."""
    source = KINDS[kind][0]
    fitting = [
        name for name, about in facts.items() if about["takes_reference"] == (kind == "extract")
    ]
    finding = [name for name in fitting if source in facts[name]["sources"]]
    if kind == "enhance":
        fitting = finding
    if not fitting:
        raise RequestError(
            501, f"no model of this server is for {kind}; start the server with one: -m MODEL"
        )
    return (finding or fitting)[0]


def asked(kind: str, form: Form, facts: dict[str, Any]) -> dict[str, Any]:
    """What the job is (see `worker.separate`). Raises RequestError for what makes no sense."""
    _check_names(form)
    if len(form.files.get("file", ())) != 1:
        raise RequestError(400, "send one sound as the field file")
    path, name = form.files["file"][0]
    model = _one(form, "model") or default_model(kind, facts)
    if model not in facts:
        raise RequestError(404, f"no model of that name; known are {', '.join(facts)}")
    references = _references(kind, form, facts[model], model)
    container = _one(form, "format") or "wav"
    if container not in FORMATS:
        raise RequestError(400, f"format is not one of {', '.join(FORMATS)}")
    subtype = _one(form, "subtype") or None
    if subtype not in (None, *FORMATS[container]):
        known = ", ".join(each for each in FORMATS[container] if each) or "none"
        raise RequestError(400, f"subtype is not one that {container} has here: {known}")
    return {
        "kind": kind,
        "model": model,
        "name": name,
        "file": path.name,
        "references": references,
        "targets": _targets(kind, form, facts[model]["sources"]),
        "residual": _flag(form, "residual"),
        "views": _flag(form, "views"),
        "format": container,
        "subtype": subtype,
    }


def _check_names(form):
    for names, known in ((form.fields, FIELDS), (form.files, FILES)):
        if unknown := sorted(set(names) - set(known)):
            where = "field" if known is FIELDS else "file"
            raise RequestError(
                400, f"unknown {where} {unknown[0][:40]!r}; known are {', '.join(known)}"
            )


def _one(form, name):
    values = form.fields.get(name, [])
    if len(values) > 1:
        raise RequestError(400, f"{name} is there {len(values)} times; send it once")
    return values[0].strip() if values else ""


def _flag(form, name):
    value = _one(form, name).lower()
    if value not in ("", "0", "1", "false", "true"):
        raise RequestError(400, f"{name} is neither true nor false")
    return value in ("1", "true")


def _references(kind, form, about, model):
    files = form.files.get("reference", [])
    if kind != "extract" or not about["takes_reference"]:
        if about["takes_reference"]:
            raise RequestError(400, f"{model} needs a reference; use /extract")
        if files or kind == "extract":
            raise RequestError(400, f"{model} takes no reference; choose another model")
        return []
    if not 1 <= len(files) <= MOST_REFERENCES:
        raise RequestError(
            400, f"send 1 to {MOST_REFERENCES} recordings of the target as the field reference"
        )
    return [{"file": path.name, "name": name} for path, name in files]


def _targets(kind, form, sources):
    wanted = list(dict.fromkeys(form.fields.get("target", [])))
    if missing := [name for name in wanted if name not in sources]:
        raise RequestError(
            400, f"the model finds {', '.join(sources)}, not {missing[0][:40]!r}; change target"
        )
    if wanted or not KINDS[kind][1]:
        return wanted
    main = KINDS[kind][0]
    return [main if main in sources else sources[0]]
