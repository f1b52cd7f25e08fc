"""Tar archives as `tarfile` writes and reads them."""

import io
import tarfile


def tar_of(members, **settings):
    """Bytes of an archive of {name: content}, written by tarfile."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **settings) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def members_of(data):
    """[(name, content)] as tarfile reads them."""
    with tarfile.open(fileobj=io.BytesIO(data), ignore_zeros=True) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def contents(samples):
    """What tells samples apart, as something that == compares."""
    return [(sample.key, sample.meta, sample.members) for sample in samples]
