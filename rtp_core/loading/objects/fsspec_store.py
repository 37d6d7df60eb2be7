"""Objects of s3:// and gs:// through fsspec's file systems, which know how to sign requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtp_core.errors import ConfigError, WeightLoadError
from rtp_core.loading.objects.patience import PassingError, Patience
from rtp_core.loading.objects.store import ObjectInfo, changed

_EXTRA = "pip install 'rtp-core[object-store]'"


class FsspecStore:
    """A prefix of a bucket. `file_system` is what fsspec makes for its scheme."""

    def __init__(self, address: str, file_system: Any, patience: Patience | None = None) -> None:
        self._address = address.rstrip("/")
        self._prefix = self._address.partition("://")[2]
        self._files = file_system
        self._patience = patience or Patience()

    @property
    def address(self) -> str:
        """See ObjectStore."""
        return self._address

    def list(self) -> Mapping[str, ObjectInfo]:
        """See ObjectStore; what lies in folders below is left out."""
        entries = self._call("", lambda: self._files.ls(self._prefix, detail=True))
        start = len(self._prefix.strip("/")) + 1
        return {
            entry["name"].strip("/")[start:]: _info(entry)
            for entry in entries
            if entry["type"] == "file" and "/" not in entry["name"].strip("/")[start:]
        }

    def info(self, key: str) -> ObjectInfo:
        """One object's, asked for now."""
        self._files.invalidate_cache(self._path(key))
        return _info(self._call(key, lambda: self._files.info(self._path(key))))

    def read(self, key: str, info: ObjectInfo, offset: int, buffer: memoryview) -> int:
        """See ObjectStore. A read that reaches the end asks for the ETag once more."""
        end = offset + len(buffer)
        data = self._call(key, lambda: self._files.cat_file(self._path(key), start=offset, end=end))
        buffer[: len(data)] = data
        if end == info.num_bytes:
            now = self.info(key)
            if now != info:
                raise changed(f"{self._address}/{key}", info.etag, now.etag)
        return len(data)

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}" if key else self._prefix

    def _call(self, key: str, work: Callable[[], Any]) -> Any:
        where = f"{self._address}/{key}".rstrip("/")

        def once() -> Any:
            try:
                return work()
            except FileNotFoundError as error:
                raise WeightLoadError(
                    "HTTP 404: there is no such object", file=where, remedy="check the address"
                ) from error
            except PermissionError as error:
                raise WeightLoadError(
                    f"HTTP 403: {error}", file=where,
                    remedy="check the credentials and their rights to list and read",
                ) from error  # fmt: skip
            except (OSError, TimeoutError) as error:
                raise PassingError(f"{type(error).__name__}: {error}".splitlines()[0]) from error

        return self._patience.call(where, once)


def open_file_system(scheme: str, options: Mapping[str, str]) -> Any:
    """fsspec's file system of a scheme. Raises ConfigError when the extra is missing."""
    try:
        import fsspec

        return fsspec.filesystem(scheme, **{key: _value(text) for key, text in options.items()})
    except ImportError as error:
        raise ConfigError(
            "model.path", f"{scheme}:// needs a package that is missing: {error}", remedy=_EXTRA
        ) from error
    except TypeError as error:
        raise ConfigError("loading.source_options", str(error)) from error


def _info(entry: Mapping[str, Any]) -> ObjectInfo:
    """By the names that s3fs, gcsfs and fsspec's own file systems give an ETag."""
    for key in ("ETag", "etag", "generation", "created", "mtime"):
        if entry.get(key):
            return ObjectInfo(int(entry["size"]), str(entry[key]))
    return ObjectInfo(int(entry["size"]), "")


def _value(text: str) -> str | bool:
    return {"true": True, "false": False}.get(text.lower(), text)
