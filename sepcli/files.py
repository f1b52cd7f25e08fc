"""Files that appear whole or not at all."""

import os
import secrets
from pathlib import Path

from sepcli.errors import SepcliError


def save(path, content):
    """Write text or bytes to a file that is complete or not there at all."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError as error:
        raise SepcliError(f"{path}: {error.strerror}; choose another place") from None
    finally:
        part.unlink(missing_ok=True)
