"""Packs as sample tars: one, or a folder of shards that any reader of WebDataset takes."""

import io
import json
from typing import Any

from sepcli.files import explained
from sepcli.samples.packwriting import BYTES, JSON, as_file
from sepcli.samples.sample import Sample, json_line
from sepcli.samples.tarstream import TarWriter

MANIFEST, SKIPPED = "manifest.jsonl", "skipped.jsonl"


class TarForm:
    """How a `Packing` puts samples into tars.

    A recording becomes a sample of its own, numbered, with the one signal ref.KIND; its JSON says
    where it comes from and who speaks. A folder has 000000.tar and so on, `shard_size` samples in
    each, manifest.jsonl, which says for each what it is for, and skipped.jsonl.
    """

    def __init__(self, shard_size: int | None = None) -> None:
        self.shard_size = shard_size
        self.result = "out" if shard_size else "out.tar"

    def keep(self, part: Any, record: dict[str, Any], contents: Any, number: int) -> None:
        """Append what was encoded, sample `number` of what is kept, to its shard."""
        stream = io.BytesIO()
        TarWriter(stream, str(part.target)).write(_sample(record, contents, number))
        part.append(self._shard(number), stream.getvalue())

    def assemble(self, part: Any, kept: Any, for_validation: Any) -> None:
        """Close the shards, and write what goes beside them.

        kept: the records of all samples, in order. for_validation: those of them that are.
        """
        counts = {}
        for number in range(len(kept)):
            counts[self._shard(number)] = counts.get(self._shard(number), 0) + 1
        with explained(part.folder):
            for name, count in counts.items():
                with (part.folder / name).open("ab") as file:
                    writer = TarWriter(file, name)
                    writer.count = count
                    writer.close()
            if self.shard_size:
                lines = (
                    _manifest(number, record, self._shard(number), number in for_validation)
                    for number, record in enumerate(kept)
                )
                (part.folder / "out" / MANIFEST).write_bytes(b"".join(lines))
                skipped = [record for record in part.records if "skipped" in record]
                (part.folder / "out" / SKIPPED).write_bytes(b"".join(map(json_line, skipped)))

    def _shard(self, number):
        return f"out/{number // self.shard_size:06d}.tar" if self.shard_size else self.result


def _key(number, record):
    """Samples keep theirs; recordings are numbered, through all shares where there are several."""
    if record["parts"][0]["group"] == JSON:
        return record["name"]
    return f"{record.get('number', number):06d}"


def _sample(record, contents, number):
    """The sample of what was encoded."""
    meta, members = {}, {}
    for about, content in zip(record["parts"], contents, strict=True):
        kind, _, name = about["group"].partition("/")
        if about["group"] == JSON:
            meta |= json.loads(content)
        elif about["dtype"] == BYTES:
            members[name] = content
        else:
            rate = about["sample_rate"]
            extension, data = as_file(content, about["dtype"], rate, about["channels"])
            meta["sample_rate"] = rate
            members[(name if kind == "samples" else f"ref.{kind}") + extension] = data
            if kind != "samples":
                meta |= {"kind": kind, "source": name, "name": record["name"]}
                meta |= {"speaker": record["speaker"] or None, "targets": [kind]}
    return Sample(_key(number, record), meta, members)


def _manifest(number, record, shard, for_validation):
    """A line of the manifest."""
    about = next((part for part in record["parts"] if part["dtype"] != BYTES), {})
    kind, _, source = about.get("group", "samples/").partition("/")
    return json_line(
        {
            "shard": shard.rpartition("/")[2],
            "key": _key(number, record),
            "kind": kind,
            "source": source if kind != "samples" else None,
            "name": record["name"],
            "speaker": record["speaker"] or None,
            "split": "validation" if for_validation else "train",
            "sample_rate": about.get("sample_rate"),
            "frames": about.get("frames"),
            "channels": about.get("channels"),
        }
    )
