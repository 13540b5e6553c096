"""Matrix products inside compiled code: the BLAS routine `gemm` of the machine, called by its address.

torch brings the faster one on Intel and AMD processors (at 64 × 64 by two fifths); where its library shows none, it is SciPy's.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic

ROUTINES = {"float32": "sgemm", "float64": "dgemm"}
NO, YES = ord("N"), ord("T")  # transposed or not


def _address(routine: str) -> int:
    """Of torch's routine, or SciPy's."""
    folder = Path(torch.__file__).parent / "lib"
    for file in (folder / "libtorch_cpu.so", folder / "libtorch_cpu.dylib"):
        try:
            return ctypes.cast(getattr(ctypes.CDLL(str(file)), f"{routine}_"), ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return get_cython_function_address("scipy.linalg.cython_blas", routine)


for _name, _routine in ROUTINES.items():
    llvm.add_symbol(f"policygrad_gemm_{_name}", _address(_routine))


@intrinsic
def _gemm(
    context: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, a: Any, at: Any, lda: Any, b: Any, bt: Any, ldb: Any,
    c: Any, ct: Any, ldc: Any,
) -> Any:  # fmt: skip
    """Column-major C ← op(A) op(B), each matrix from a place of a vector on."""
    signature = types.void(ta, tb, m, n, k, a, at, lda, b, bt, ldb, c, ct, ldc)

    def generate(target: Any, builder: Any, sig: Any, args: Any) -> Any:
        dtype = sig.args[5].dtype
        number, whole, byte = target.get_value_type(dtype), ir.IntType(64), ir.IntType(8)

        def slot(value: Any, kind: Any) -> Any:
            place = cgutils.alloca_once(builder, kind)
            builder.store(value, place)
            return place

        def integer(i: int) -> Any:  # 8 bytes, so that both widths of BLAS's integers read the same number
            return slot(target.cast(builder, args[i], sig.args[i], types.int64), whole)

        def letter(i: int) -> Any:
            return slot(builder.trunc(target.cast(builder, args[i], sig.args[i], types.int64), byte), byte)

        def matrix(i: int) -> Any:
            data = target.make_array(sig.args[i])(target, builder, args[i]).data
            return builder.gep(data, [target.cast(builder, args[i + 1], sig.args[i + 1], types.intp)])

        one, zero = (slot(ir.Constant(number, x), number) for x in (1.0, 0.0))
        values = [letter(0), letter(1), integer(2), integer(3), integer(4), one, matrix(5), integer(7), matrix(8),
                  integer(10), zero, matrix(11), integer(13)]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [v.type for v in values])
        routine = cgutils.get_or_insert_function(builder.module, kind, f"policygrad_gemm_{dtype}")
        builder.call(routine, values)
        return target.get_dummy_value()

    return signature, generate


gemm: Any = _gemm  # called without the context, which numba adds
