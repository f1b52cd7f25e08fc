"""Multipart uploads, written to a folder as they come, within limits of size and time.

RFC 7578. Files get names of ours; what a client calls them is only shown.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepcli.serving.settings import MEGABYTE, RequestError, Settings

MOST_PARTS = 64
MOST_TEXT = 4096  # bytes of a field that is no file
SHOWN = 80  # characters of a name


@dataclass
class Form:
    """What was uploaded: fields {name: [text, ...]}, files {field: [(path, shown name), ...]}."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)


async def receive(
    content_type: str, body: AsyncIterator[bytes], folder: Path, settings: Settings
) -> Form:
    """Write the files of a multipart body into `folder`, and return its `Form`.

    Raises RequestError when it is none, is cut off, too large, or comes too slowly. Whatever was
    written by then is left to the caller.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what is raised, too
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestError(415, "expected multipart/form-data; send the sound as the field file")
    parts = _Parts(folder)
    size = 0
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async for piece in _in_time(body, settings):
            size += len(piece)
            if size > settings.most_bytes:
                raise too_large(settings)
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, f"the body is not multipart/form-data ({error})") from None
    finally:
        parts.close()
    if not parts.complete:
        raise RequestError(400, "the body ends before its last boundary; send it again")
    return parts.form


def too_large(settings: Settings) -> RequestError:
    """The error for an upload that is beyond the limit."""
    return RequestError(
        413, f"the upload is larger than {settings.upload_mb:g} MB, the limit of this server"
    )


async def _in_time(body, settings: Settings):
    """Pass pieces on while they come fast enough."""
    began = time.monotonic()
    pieces, size = body.__aiter__(), 0
    while True:
        try:
            piece = await asyncio.wait_for(anext(pieces), settings.pause_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestError(
                408, f"no data arrived for {settings.pause_s:g} s; send the upload again"
            ) from None
        size += len(piece)
        late = time.monotonic() - began - settings.pause_s
        if late * settings.slowest > size:
            rate = settings.slowest / MEGABYTE * 1000
            raise RequestError(408, f"the upload is slower than {rate:g} kB/s; send it again")
        yield piece


class _Parts:
    """Callbacks of the parser, which make a `Form`."""

    def __init__(self, folder):
        self.form, self.complete = Form(), False
        self._folder, self._count = folder, 0
        self._file: Any = None
        self._text: Any = None  # of a field that is no file
        self._headers, self._name, self._value = {}, b"", b""

    def callbacks(self) -> Any:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value")
        names += ("header_end", "headers_finished", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self):
        self._count += 1
        if self._count > MOST_PARTS:
            raise RequestError(400, f"more than {MOST_PARTS} fields")
        self._headers = {}

    def _header_field(self, data, start, end):
        self._name += data[start:end]

    def _header_value(self, data, start, end):
        self._value += data[start:end]

    def _header_end(self):
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self):
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            path = self._folder / f"upload-{self._count}"
            shown = shown_name(options[b"filename"].decode("utf-8", "replace"))
            self.form.files.setdefault(self._field, []).append((path, shown))
            self._file = path.open("xb")
        else:
            self._text = b""

    def _part_data(self, data, start, end):
        if self._text is None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MOST_TEXT:
            raise RequestError(400, f"the field {shown_name(self._field)} is too long")

    def _part_end(self):
        if self._text is not None:
            text = self._text.decode("utf-8", "replace")
            self.form.fields.setdefault(self._field, []).append(text)
        self.close()

    def _end(self):
        self.complete = True

    def close(self):
        if self._file is not None:
            self._file.close()
        self._file = self._text = None


def shown_name(name: str) -> str:
    """What to call a file, without its ending, that a client called `name`: never a path."""
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c for c in name if c.isprintable() and c not in '<>:"|?*')
    stem, dot, _ = name.rpartition(".")
    return (stem if dot else name).strip(". ")[:SHOWN] or "audio"
