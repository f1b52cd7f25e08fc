"""`sepcli serve`: separation over HTTP and WebSocket, and a page."""

import os
import re
from pathlib import Path

import click

from sepcli import options
from sepcli.errors import SepcliError, UsageError, note

TOKEN = "SEPCLI_TOKEN"


@click.command("serve")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]NAME|FILE|DIR",
    help="Model to offer, and the name that clients know it by; repeatable.  [default: all that "
    "come with sepcli]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 is any that is free.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    help=f"File with the bearer token that requests must send.  [default: ${TOKEN}]",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    default="sepcli-serve",
    show_default=True,
    help="Folder of the jobs; a server that is started again finishes them.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that separate, one job each at a time.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 10_000),
    default=32,
    show_default=True,
    help="Jobs that may wait; beyond them requests get the status 503.",
)
@click.option(
    "--upload-mb",
    type=options.Number(0, 100_000, min_open=True),
    default=512.0,
    show_default=True,
    help="Largest upload, in MB.",
)
@click.option(
    "--max-duration",
    "duration_s",
    type=options.Number(0, 100_000, min_open=True),
    default=1200.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest sound, in seconds.",
)
@click.option(
    "--keep",
    "keep_s",
    type=options.Number(0),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a finished job is kept, in seconds.",
)
@click.option(
    "--streams",
    type=click.IntRange(min=0),
    help="Most live streams at once.  [default: as many as three quarters of the cores can run]",
)
@options.device
@options.threads
@options.quiet
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    token_file: str | None,
    folder: str,
    workers: int,
    threads: int | None,
    quiet: bool,
    **limits: object,
) -> None:
    """Serve separation over HTTP and WebSocket, and a page.

    \b
        $ sepcli serve                                    # http://127.0.0.1:8000
        $ curl -F file=@noisy.wav http://127.0.0.1:8000/enhance -o clean.wav
        $ curl -F file=@song.wav http://127.0.0.1:8000/separate -o stems.zip
        $ SEPCLI_TOKEN=secret sepcli serve --host 0.0.0.0 -m denoise -m mine=runs/mine

    POST /separate, /enhance and /extract take the sound as the field `file` and wait for the
    result; with the header `Prefer: respond-async` they answer at once with the address of a job.
    Live audio goes through the WebSocket /stream. docs/serving.md has all of it.
    """
    try:
        from sepcli.serving.server import serve
    except ImportError as error:
        raise SepcliError(f"{error.name} is not installed; pip install 'sepcli[serve]'") from None
    from sepcli.serving.settings import Settings

    cores = os.cpu_count() or 1
    settings = Settings(
        models=offered(models),
        folder=Path(folder),
        token=token(token_file),
        workers=workers,
        threads=threads or max(1, cores // workers),
        **limits,  # type: ignore[arg-type]
    )
    if host not in ("127.0.0.1", "::1", "localhost") and settings.token is None:
        note(f"--host {host} without a token: whoever reaches it can use it; set ${TOKEN}")

    def tell(port):
        if not quiet:
            named = f"[{host}]" if ":" in host else host
            click.echo(f"Serving on http://{named}:{port}", err=True)

    serve(settings, host, port, tell)


def offered(models: tuple[str, ...]) -> dict[str, str]:
    """{name: model} of what -m says; UsageError when two have one name."""
    from sepcli.models.modelfile import locate, shipped

    found = {}
    for each in models or shipped():
        name, equals, path = each.partition("=")
        if not equals or os.path.exists(each):
            name, path = Path(each).stem, each
        if not name or name in found:
            raise UsageError(f"-m {each}: the name {name!r} is taken; say -m OTHER={path}")
        locate(path)
        found[name] = os.path.abspath(path) if os.path.exists(path) else path
    return found


def token(path: str | None) -> str | None:
    """The token in a file, or in the environment; None if there is none."""
    from sepcli import files

    found = files.read_text(path) if path else os.environ.get(TOKEN)
    if found is None:
        return None
    if not re.fullmatch(r"[!-~]{8,}", found.strip()):
        where = path or f"${TOKEN}"
        raise SepcliError(f"{where}: a token has at least 8 ASCII characters and no spaces")
    return found.strip()
