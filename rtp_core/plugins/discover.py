"""Which plugins are installed: built-in rooms and entry points. Imports none of them."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path

from rtp_core import __version__
from rtp_core.plugins.manifest import FILE_NAME, Manifest, Source, read_manifest

GROUP = "rtp.plugins"
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def discover() -> tuple[Manifest, ...]:
    """Manifests of built-ins, then of installed plugins by name; broken ones included."""
    installed = [_read(entry) for entry in entry_points(group=GROUP)]
    names = Counter(manifest.name for manifest in installed)
    unique = [
        replace(manifest, broken=_same_name(manifest, installed))
        if names[manifest.name] > 1
        else manifest
        for manifest in installed
    ]
    return (*builtins(), *sorted(unique, key=lambda one: (one.name, one.distribution)))


def builtins() -> tuple[Manifest, ...]:
    """Rooms of rtp-core that hold a ``plugin.toml``; their offers come from its neighbour."""
    root = Path(__file__).parent.parent
    return tuple(
        read_manifest(
            file,
            Source(
                f"core.{file.parent.name}",
                f"rtp_core.{file.parent.name}.plugin",
                "rtp-core",
                __version__,
            ),
        )
        for file in sorted(root.glob(f"*/{FILE_NAME}"))
    )


def _read(entry: EntryPoint) -> Manifest:
    source = Source(entry.name, entry.value, *_distribution(entry.dist))
    if not _MODULE.fullmatch(entry.value):
        return source.broken(f"entry point {entry.value!r} is not a module like rtp_x.plugin")
    package = entry.value.partition(".")[0]
    folder = _package_folder(package)
    if isinstance(folder, str):
        return source.broken(folder)
    file = folder / FILE_NAME
    if not file.is_file():
        return source.broken(f"package {package} holds no {FILE_NAME}")
    return read_manifest(file, source)


def _package_folder(package: str) -> Path | str:
    """Folder of a top-level package, or why there is none.

    `find_spec` of a top-level name imports nothing and sees editable installs; of a dotted
    name it would import the parent.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        return f"package {package} cannot be found: {error}"
    if spec is None:
        return f"package {package} is not on the path"
    locations = list(spec.submodule_search_locations or ())
    if not locations:
        return f"{package} is a module, not a package that could hold {FILE_NAME}"
    if spec.origin is None or len(locations) > 1:
        return f"{package} is a namespace package; it needs an __init__.py"
    return Path(locations[0])


def _distribution(dist: Distribution | None) -> tuple[str, str]:
    """(name, version) as pip shows them."""
    if dist is None:
        return "unknown", "unknown"
    metadata = dist.metadata
    return metadata["Name"] or "unknown", metadata["Version"] or "unknown"


def _same_name(manifest: Manifest, installed: list[Manifest]) -> str:
    owners = sorted(one.distribution for one in installed if one.name == manifest.name)
    return f"{' and '.join(owners)} install plugins of the same name; uninstall all but one"
