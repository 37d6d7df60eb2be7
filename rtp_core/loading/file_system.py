"""Which kind of storage a path lies on, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path

_REMOTE = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "ceph", "gpfs", "beegfs"),
        *("glusterfs", "9p", "virtiofs", "afs", "orangefs", "pvfs2", "davfs"),
    }
)
"""File systems whose bytes come over a network or from another process."""
MOUNTS = Path("/proc/self/mountinfo")


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Its type (``ext4``, ``nfs4``, ``fuse.gcsfuse``); "" if the system does not tell."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    wanted = path.resolve()
    best, found = -1, ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = Path(_unescaped(fields.split()[4]))
        depth = len(point.parts)
        if depth >= best and wanted.is_relative_to(point):
            best, found = depth, rest.split()[0]
    return found


def is_remote(kind: str) -> bool:
    """FUSE too: a process of its own answers, and mostly from afar."""
    return kind in _REMOTE or kind == "fuse" or kind.startswith("fuse.")


def _unescaped(text: str) -> str:
    """Spaces in mount points are written as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
