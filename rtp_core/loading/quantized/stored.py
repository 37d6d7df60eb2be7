"""The tensors of a checkpoint while a format finds out which of them belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rtp_core.api import TensorInfo
from rtp_core.errors import WeightLoadError
from rtp_core.loading.quantized.tensor import CODES, Parts, QuantizedTensor, Unpacked

FLOATS = ("F32", "F16", "BF16")
"""dtypes of scales."""
_INCOMPLETE = "the checkpoint is incomplete or quantization_config belongs to another model"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a weight is stored, in words, and how it is read; see `QuantizedTensor`."""

    name: str
    unpack: Callable[[Parts], Unpacked]
    code_bits: int | None = None


class Stored:
    """Parts are taken out, and the weights that they make put in."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self.tensors = dict(tensors)
        self.kinds: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    def modules(self, part: str) -> Iterator[str]:
        """Names of the modules that hold a tensor called `part`."""
        end = "." + part
        return (name.removesuffix(end) for name in list(self.tensors) if name.endswith(end))

    def take(self, name: str) -> TensorInfo:
        """A tensor that must be there."""
        tensor = self.tensors.pop(name, None)
        if tensor is None:
            raise WeightLoadError(f"missing: {name}", remedy=_INCOMPLETE)
        return tensor

    def find(self, name: str) -> TensorInfo | None:
        """A tensor that may be there."""
        return self.tensors.pop(name, None)

    def skip(self, why: str, wanted: Callable[[str], object]) -> None:
        """Leave aside the tensors whose names are `wanted`."""
        for name in [name for name in self.tensors if wanted(name)]:
            del self.tensors[name]
            self.skipped[why] += 1

    def put(
        self, module: str, shape: tuple[int, int], parts: Mapping[str, TensorInfo], kind: Kind
    ) -> None:
        """The weight of `module`, [rows, columns]."""
        name, codes = f"{module}.weight", parts[CODES]
        if name in self.tensors:
            raise WeightLoadError(
                f"stored twice, also in parts as {codes.name}",
                file=self.tensors[name].file,
                tensor=name,
            )
        num_bytes = sum(part.num_bytes for part in parts.values())
        self.kinds[kind.name] += 1
        self.tensors[name] = QuantizedTensor(
            name,
            codes.file,
            codes.offset,
            num_bytes,
            shape,
            kind.name,
            quantized=True,
            parts=parts,
            unpack=kind.unpack,
            code_bits=kind.code_bits,
        )


def check(tensor: TensorInfo, dtypes: Collection[str], *shapes: Sequence[int]) -> TensorInfo:
    """The tensor, if it has one of these dtypes and shapes; WeightLoadError naming it if not."""
    if tensor.dtype not in dtypes:
        raise broken(tensor, f"dtype {tensor.dtype}, expected {' or '.join(dtypes)}")
    if tensor.shape not in [tuple(shape) for shape in shapes]:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise broken(tensor, f"shape {list(tensor.shape)}, expected {expected}")
    return tensor


def matrix(tensor: TensorInfo, dtypes: Collection[str]) -> tuple[int, int]:
    """Rows and columns of a tensor that must be a matrix, and not an empty one."""
    match tensor.shape:
        case (int(rows), int(columns)) if rows and columns:
            check(tensor, dtypes, tensor.shape)
            return rows, columns
    raise broken(tensor, f"shape {list(tensor.shape)}, expected rows and columns")


def num_groups(tensor: TensorInfo, columns: int, group_size: int | None) -> int:
    """Groups of a row of the weight whose codes `tensor` holds; None is one group a row."""
    size = group_size or columns
    if columns % size:
        raise broken(tensor, f"its {columns} inputs are not whole groups of {size}")
    return columns // size


def broken(tensor: TensorInfo, message: str) -> WeightLoadError:
    """The error of a tensor whose header contradicts what was expected."""
    return WeightLoadError(message, file=tensor.file, tensor=tensor.name)
