"""`sepcli download`: weights that their authors publish."""

import click


@click.command("download")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def command(names: tuple[str, ...]) -> None:
    """Download published weights into the cache.

    \b
        $ sepcli download                   # what there is, and under which licence
        $ sepcli download umxhq
        $ sepcli separate -m umxhq song.wav

    The files come from where their authors publish them, are checked against their SHA-256, and are
    kept in the folder models of the cache: that which SEPCLI_CACHE names, or the system's own. A
    download that broke off goes on where it was.
    """
    from sepcli.models.weights.published import PUBLISHED, download
    from sepcli.scoring.tables import aligned

    if not names:
        rows = [[name, each.about, each.licence] for name, each in PUBLISHED.items()]
        click.echo(aligned(["name", "what", "licence"], rows, left=(0, 1, 2)))
    for name in names:
        click.echo(download(name, _tell))


def _tell(file: str, have: int, total: int | None) -> None:
    if have == total:
        click.echo(f"{file}: {have:,} bytes", err=True)
