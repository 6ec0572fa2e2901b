"""What numba lacks for `decimals`: some instructions of the processor, and memory by its address.

They stand apart since numba compiles a function anew when its own file changes, and not when one
that it calls does: what is here should stay as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile once for all processes; where nothing may be written, once for this one."""
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(Function, njit(nogil=True)(function))


def _instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is an instruction of the processor."""
    return cast(Callable[..., Any], intrinsic(function))


@_instruction
def upper_half(context: Any, first: Any, second: Any) -> Any:
    """Upper 64 bits of a product of two uint64: one instruction, for which numba has no name."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@_instruction
def zeros_before(context: Any, number: Any) -> Any:
    """Leading zeros of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_instruction
def zeros_behind(context: Any, number: Any) -> Any:
    """Trailing zeros of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_instruction
def byte_at(context: Any, address: Any) -> Any:
    """The byte at an address, as an int64.

    Memory is read by addresses because numba counts the references to an array in each function
    that it hands it to, which takes longer than the digits do.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), generate


@_instruction
def eight_at(context: Any, address: Any) -> Any:
    """Eight bytes as one uint64, the first lowest; wherever they begin."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), generate


@_instruction
def bits_of(context: Any, number: Any) -> Any:
    """The bits of a float64 as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate
