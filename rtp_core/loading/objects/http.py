"""Objects over HTTP: ranges, checked by status, Content-Range and ETag (RFC 9110)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import httpx2

from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.objects.patience import PassingError, Patience
from rtp_core.loading.objects.store import ObjectFile, ObjectInfo, changed

CONNECTIONS = 64
INDEX = "model.safetensors.index.json"
_DESCRIPTIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_REMEDIES = {
    401: "the server wants credentials: use a signed URL or s3://, gs://",
    403: "the server refuses: check the credentials and that a signed URL has not expired",
    404: "check the address",
    416: "the object is shorter than it was said to be: upload it again",
}


class HttpStore:
    """A folder of a web server, which need not list it: names that models have are asked for."""

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        self._address = address.rstrip("/")
        self._patience = patience or Patience()
        self._client = httpx2.Client(
            timeout=self._patience.timeout_s,
            limits=httpx2.Limits(max_connections=CONNECTIONS),
            headers={"Accept-Encoding": "identity"},
            follow_redirects=False,
        )

    @property
    def address(self) -> str:
        """See ObjectStore; without a query, which may be a signature."""
        return _shown(self._address)

    def list(self) -> Mapping[str, ObjectInfo]:
        """See ObjectStore. Shards are those of the index, else ``model.safetensors``."""
        found = self._heads((*_DESCRIPTIONS, INDEX, "model.safetensors"))
        if INDEX in found:
            index = ObjectFile(self, INDEX, found[INDEX]).read_range(0, found[INDEX].num_bytes)
            found |= self._heads(_shards(self._url(INDEX), index) - set(found))
        return found

    def info(self, key: str) -> ObjectInfo | None:
        """One object's, or None if there is none."""
        where = self._url(key)
        return self._patience.call(_shown(where), lambda: self._head(where))

    def read(self, key: str, info: ObjectInfo, offset: int, buffer: memoryview) -> int:
        """See ObjectStore."""
        where = self._url(key)
        return self._patience.call(_shown(where), lambda: self._range(where, info, offset, buffer))

    def _heads(self, keys: Iterable[str]) -> dict[str, ObjectInfo]:
        keys = list(keys)
        with ThreadPoolExecutor(max(1, min(CONNECTIONS, len(keys)))) as pool:
            found = pool.map(self.info, keys)
            return {key: info for key, info in zip(keys, found, strict=True) if info is not None}

    def _url(self, key: str) -> str:
        parts = urlsplit(self._address)
        path = f"{parts.path.rstrip('/')}/{quote(key)}" if key else parts.path
        return parts._replace(path=path).geturl()

    def _head(self, where: str) -> ObjectInfo | None:
        try:
            answer = self._client.head(where)
        except httpx2.HTTPError as error:
            raise _passing(error) from error
        if answer.status_code == 404:
            return None
        _check_status(where, answer.status_code, 200)
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise WeightLoadError("the server tells no Content-Length", file=_shown(where))
        return ObjectInfo(int(length), answer.headers.get("etag", ""))

    def _range(self, where: str, info: ObjectInfo, offset: int, buffer: memoryview) -> int:
        headers = {"Range": f"bytes={offset}-{offset + len(buffer) - 1}"}
        if info.etag and not info.etag.startswith("W/"):
            headers["If-Match"] = info.etag
        done = 0
        try:
            with self._client.stream("GET", where, headers=headers) as answer:
                _check_range(where, answer, info, offset)
                for piece in answer.iter_raw():
                    if done + len(piece) > len(buffer):
                        raise WeightLoadError("more bytes than asked for", file=_shown(where))
                    buffer[done : done + len(piece)] = piece
                    done += len(piece)
        except httpx2.HTTPError as error:
            if done:  # what came is good; the rest is the next read's
                return done
            raise _passing(error) from error
        if not done:
            raise PassingError(f"no bytes at {offset}")
        return done


def _check_range(where: str, answer: httpx2.Response, info: ObjectInfo, offset: int) -> None:
    if answer.status_code == 412:
        raise changed(_shown(where), info.etag, answer.headers.get("etag", "another"))
    if answer.status_code == 200:
        raise WeightLoadError(
            "HTTP 200 for a range: the server ignores ranges",
            file=_shown(where),
            remedy="use a server that honours them, or download the model",
        )
    _check_status(where, answer.status_code, 206)
    etag = answer.headers.get("etag", info.etag)
    if etag != info.etag:
        raise changed(_shown(where), info.etag, etag)
    match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != offset or match[3] not in ("*", str(info.num_bytes)):
        raise WeightLoadError(
            f"Content-Range {answer.headers.get('content-range')!r:.80} for byte {offset} of "
            f"{info.num_bytes}",
            file=_shown(where),
            remedy="the object changed, or a proxy alters answers",
        )


def _check_status(where: str, status: int, wanted: int) -> None:
    if status == wanted:
        return
    if status in _LATER:
        raise PassingError(f"HTTP {status}")
    if 300 <= status < 400:
        raise WeightLoadError(
            f"HTTP {status}: redirections are not followed, other hosts were not named",
            file=_shown(where),
            remedy="pass the address it leads to",
        )
    raise WeightLoadError(f"HTTP {status}", file=_shown(where), remedy=_REMEDIES.get(status))


def _shards(where: str, index: bytes) -> set[str]:
    try:
        names = set(json.loads(index)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{_shown(where)} is no index: {error}") from error
    for name in names:
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise ModelError(f"{_shown(where)}: shard {name!r:.80} lies outside the model")
    return names


def _passing(error: httpx2.HTTPError) -> PassingError:
    if isinstance(error, httpx2.TimeoutException):
        return PassingError("no answer in time")
    return PassingError(f"{type(error).__name__}: {error}".splitlines()[0])


def _shown(where: str) -> str:
    """For people: a query may be a signature, and a name may be a user's with a password."""
    parts = urlsplit(where)
    return parts._replace(query="", netloc=parts.netloc.rpartition("@")[2]).geturl()
