"""Compiles Triton kernels for a GPU that is not there, and counts what the compiler made.

The interpreter runs what no GPU would: a name that changes its shape, a loop variable that stops
being constant. And it says nothing of spilled registers, of loads of two bytes where sixteen were
meant, of the old matrix instruction where Hopper's was meant. Compiling says all that, without a
GPU. It runs in a process of its own, because a process that interprets cannot compile.

    case = Case("rtp_kernels.gpu.row_norm", "add_rms_norm",
                types={"x": "*bf16", "eps": "fp32", "stride": "i32:16"},
                constants={"COLUMNS": 4096, "PDL": True}, warps=8)
    compiled, = compile_all([case])
    assert compiled.stack == 0

Types are Triton's: "*bf16", "i32", "fp32", "tensordesc<bf16[64,128]>". An integer that is a
multiple of 16 at every call is "i32:16"; pointers always are. Every parameter of the kernel that
has no type is a constant, and must be given.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

HOPPER = 90
VECTOR_LOAD = r"ld\.global[.\w:]*\.v[24]\.(b32|b64|u32|u64)"


@dataclass(frozen=True)
class Case:
    """One specialisation of a kernel."""

    module: str
    kernel: str
    types: dict[str, str]
    constants: dict[str, Any] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3
    arch: int = HOPPER

    def __str__(self) -> str:
        constants = " ".join(f"{name}={value}" for name, value in self.constants.items())
        return f"{self.kernel} {constants} warps={self.warps} stages={self.stages}"


@dataclass(frozen=True)
class Compiled:
    """What became of a case: registers and bytes of stack a thread, bytes of shared memory."""

    registers: int
    stack: int
    shared: int
    ptx: str

    def count(self, pattern: str) -> int:
        """Occurrences of a regular expression in the PTX."""
        return len(re.findall(pattern, self.ptx))

    @property
    def hopper_products(self) -> int:
        return self.count(r"wgmma\.mma_async")

    @property
    def older_products(self) -> int:
        return self.count(r"\bmma\.sync")

    @property
    def tile_loads(self) -> int:
        """Loads of tensor descriptors (TMA)."""
        return self.count(r"cp\.async\.bulk\.tensor[.\w:]*\.shared")

    @property
    def asynchronous_copies(self) -> int:
        """Copies of 16 bytes a thread to shared memory (cp.async)."""
        return self.count(r"cp\.async\.c[ag]\.shared[.\w:]*\s*\[[^]]*\]\s*,\s*\[[^]]*\]\s*,\s*0x10")

    @property
    def vector_loads(self) -> int:
        """Loads of 8 bytes and more a thread."""
        return self.count(VECTOR_LOAD)

    @property
    def scalar_loads(self) -> int:
        """Other loads: one element a thread."""
        return self.count(r"ld\.global") - self.vector_loads

    @property
    def dependency_waits(self) -> int:
        """Of programmatic dependent launch."""
        return self.count(r"griddepcontrol\.wait")


def compile_all(cases: Sequence[Case]) -> list[Compiled]:
    """In the order of `cases`. A case that does not compile raises RuntimeError with its log."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    roots = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, roots))
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(case) for case in cases]),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return [Compiled(**one) for one in json.loads(done.stdout)]


def compile_one(case: Case) -> Compiled:
    """In this process, which must not interpret."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(import_module(case.module), case.kernel)
    unknown = (set(case.types) | set(case.constants)) - set(kernel.arg_names)
    missing = set(kernel.arg_names) - set(case.types) - set(case.constants)
    if unknown or missing:
        raise ValueError(f"{case.kernel}: no parameter {unknown}, no value for {missing}")
    signature = {
        name: case.types[name].removesuffix(":16") if name in case.types else "constexpr"
        for name in kernel.arg_names
    }
    divisible = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or case.types.get(name, "").endswith(":16")
    }
    source = ASTSource(kernel, signature, constexprs=case.constants, attrs=divisible)
    options = {"num_warps": case.warps, "num_stages": case.stages, "launch_pdl": True}
    target = GPUTarget("cuda", case.arch, 32)
    done = triton.compile(source, target=target, options=options)
    registers, stack = resources(done.asm["cubin"])
    return Compiled(registers, stack, done.metadata.shared, done.asm["ptx"])


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack a thread, as `cuobjdump` of Triton's own wheel reads them."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    if found is None:
        raise RuntimeError(f"cuobjdump said: {report[-400:]}")
    return int(found[1]), int(found[2])


def main() -> None:
    """Cases as JSON on standard input, results as JSON on standard output."""
    results = []
    for fields in json.load(sys.stdin):
        case = Case(**fields)
        try:
            results.append(asdict(compile_one(case)))
        except Exception as error:
            raise RuntimeError(f"{case}: {error}") from error
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
