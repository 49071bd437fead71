"""Rows of weights added to a run of outputs, which stay in vector registers while all rows go by.

Python's loops can say in which order numbers are added, but not that some of them stay in registers: for that, this one
loop is written as LLVM's vector code, which numba compiles for whatever vectors the machine has. A block of outputs is
read once, each row adds its numbers to it, and the block is written once; what is left of a run goes in ever smaller
blocks. So a row costs the reading of its weights and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BLOCK_BYTES = 128
"""Outputs that are held at a time: four vectors of AVX2. With twice as many, runs would end in more small blocks."""

_PLACE = ir.IntType(64)


@intrinsic
def _add_rows(
    typing_context: Any,
    weights: Any,
    start: Any,
    row: Any,
    spiking: Any,
    first: Any,
    end: Any,
    out: Any,
    to: Any,
    length: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Add a run of weights of each spike to out[to .. to + length].

    Compiled functions alone call it. Nothing is checked: all places must lie within their arrays.

    Parameters
    ----------
    weights : flat; the run of spike n begins at start + n row.
    spiking : integers, of which those from `first` to before `end` are the spikes.
    out : flat, of the weights' type or a wider one of the same kind.
    """
    assert all(array.layout == "C" and array.ndim == 1 for array in (weights, spiking, out)), "flat arrays only"
    places = (types.int64,) * 2
    signature = types.void(weights, *places, spiking, *places, out, *places)
    return signature, _code


add_rows: Any = _add_rows


def _code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
    """Write the loops over blocks of ever fewer outputs."""
    weights, start, row, spiking, first, end, out, to, length = values
    arrays = [
        context.make_array(kind)(context, builder, value).data
        for kind, value in zip(signature.args[::3], (weights, spiking, out), strict=True)
    ]
    sizes = arrays[0], start, row, arrays[1], first, end, builder.gep(arrays[2], [to])
    done: Any = ir.Constant(_PLACE, 0)
    width = BLOCK_BYTES * 8 // _bits(arrays[2].type.pointee)
    while width:
        done = _blocks(builder, sizes, done, length, width)
        width //= 2
    return context.get_dummy_value()


def _blocks(builder: ir.IRBuilder, sizes: Any, done: Any, length: Any, width: int) -> Any:
    """Write the loop that adds to as many blocks as fit into the rest of the run; return how far it came."""
    weights, start, row, spiking, first, end, out = sizes
    before = builder.block
    test, block, spike, write, after = (builder.append_basic_block(f"{name}{width}") for name in _LOOP)
    kept, summed = (ir.VectorType(pointer.type.pointee, width) for pointer in (weights, out))
    builder.branch(test)

    builder.position_at_end(test)
    at = builder.phi(_PLACE)
    at.add_incoming(done, before)
    following = builder.add(at, ir.Constant(_PLACE, width))
    some = builder.and_(builder.icmp_signed("<=", following, length), builder.icmp_signed("<", first, end))
    builder.cbranch(some, block, after)

    builder.position_at_end(block)
    outputs = builder.bitcast(builder.gep(out, [at]), summed.as_pointer())
    begun = builder.load(outputs, align=_bits(summed.element) // 8)
    here = builder.gep(weights, [builder.add(start, at)])
    builder.branch(spike)

    builder.position_at_end(spike)
    n, total = builder.phi(_PLACE), builder.phi(summed)
    n.add_incoming(first, block)
    total.add_incoming(begun, block)
    place = builder.load(builder.gep(spiking, [n]))
    if _bits(place.type) < 64:
        place = builder.sext(place, _PLACE)
    source = builder.bitcast(builder.gep(here, [builder.mul(place, row)]), kept.as_pointer())
    added = builder.load(source, align=_bits(kept.element) // 8)
    more = _sum(builder, total, added)
    n_next = builder.add(n, ir.Constant(_PLACE, 1))
    n.add_incoming(n_next, spike)
    total.add_incoming(more, spike)
    builder.cbranch(builder.icmp_signed("<", n_next, end), spike, write)

    builder.position_at_end(write)
    builder.store(more, outputs, align=_bits(summed.element) // 8)
    at.add_incoming(following, write)
    builder.branch(test)

    builder.position_at_end(after)
    return at


_LOOP = ("test", "block", "spike", "write", "after")


def _sum(builder: ir.IRBuilder, total: Any, added: Any) -> Any:
    """Write the sum of two vectors, the second of which may be of narrower numbers."""
    if isinstance(total.type.element, ir.IntType):
        if added.type != total.type:
            added = builder.sext(added, total.type)
        return builder.add(total, added)
    if added.type != total.type:
        added = builder.fpext(added, total.type)
    return builder.fadd(total, added)


def _bits(kind: Any) -> int:
    """Width of a number."""
    width: int = kind.width if isinstance(kind, ir.IntType) else {ir.FloatType(): 32, ir.DoubleType(): 64}[kind]
    return width
