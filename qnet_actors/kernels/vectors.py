"""Kernels written as vector instructions, where loops that a compiler vectorises fall short.

An emitter is a Python function that runs once, while numba compiles: it computes on `Vector`s, each
a value of LLVM's vector types, and so writes straight-line code.  LLVM turns vectors wider than the
processor's into several, so the code is right on every processor and fast where it has AVX-512.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import llvmlite.binding
import llvmlite.ir as ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

Element: TypeAlias = Any
Pointer: TypeAlias = Any
Scalar: TypeAlias = Any

I8: Final[Element] = ir.IntType(8)
I32: Final[Element] = ir.IntType(32)
I64: Final[Element] = ir.IntType(64)
F32: Final[Element] = ir.FloatType()

_INSTRUCTION_SETS: Final = {"avx512bw": "AVX-512", "avx2": "AVX2", "neon": "NEON"}

# Part of numba, and not annotated there.
_declare: Final[Any] = cgutils.get_or_insert_function


def instruction_set() -> str:
    """The widest vector instructions that numba compiles for, for people to read."""
    _, processor, listed = cpu_target.target_context.codegen().magic_tuple()
    features = {name: name in listed.replace("+", "").split(",") for name in _INSTRUCTION_SETS}
    if not listed and processor == llvmlite.binding.get_host_cpu_name():
        features = dict(llvmlite.binding.get_host_cpu_features())
    for name, label in _INSTRUCTION_SETS.items():
        if features.get(name):
            return label
    return str(processor)


def _constant(element: Element, values: Sequence[float]) -> Any:
    kind = ir.VectorType(element, len(values))
    return ir.Constant(kind, [ir.Constant(element, value) for value in values])


class Vector:
    """An LLVM vector under construction; a number beside it stands for a vector of that number.

    Integer operations wrap around.
    """

    __slots__ = ("_builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self._builder = builder
        self.value = value

    @property
    def element(self) -> Element:
        return self.value.type.element

    @property
    def lanes(self) -> int:
        count: int = self.value.type.count
        return count

    def emitter(self) -> Emitter:
        """Where this vector is being computed."""
        return Emitter(self._builder)

    def _other(self, other: Vector | float) -> Any:
        if isinstance(other, Vector):
            return other.value
        return _constant(self.element, [other] * self.lanes)

    def _with(self, value: Any) -> Vector:
        return Vector(self._builder, value)

    def _call(self, name: str, result: Any, *arguments: Any) -> Vector:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = _declare(self._builder.module, kind, name)
        return self._with(self._builder.call(function, arguments))

    def _suffix(self) -> str:
        prefix = "f32" if self.element == F32 else f"i{self.element.width}"
        return f"v{self.lanes}{prefix}"

    def __add__(self, other: Vector | float) -> Vector:
        add = self._builder.fadd if self.element == F32 else self._builder.add
        return self._with(add(self.value, self._other(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return self._with(self._builder.sub(self.value, self._other(other)))

    def __rsub__(self, other: float) -> Vector:
        return self._with(self._builder.sub(self._other(other), self.value))

    def __mul__(self, other: Vector | float) -> Vector:
        multiply = self._builder.fmul if self.element == F32 else self._builder.mul
        return self._with(multiply(self.value, self._other(other)))

    def __and__(self, other: Vector | int) -> Vector:
        return self._with(self._builder.and_(self.value, self._other(other)))

    def __or__(self, other: Vector | int) -> Vector:
        return self._with(self._builder.or_(self.value, self._other(other)))

    def __xor__(self, other: Vector | int) -> Vector:
        return self._with(self._builder.xor(self.value, self._other(other)))

    def __invert__(self) -> Vector:
        return self._with(self._builder.not_(self.value))

    def __lshift__(self, bits: int) -> Vector:
        return self._with(self._builder.shl(self.value, self._other(bits)))

    def shift_right(self, bits: int | Sequence[int]) -> Vector:
        """Logical shift, of all lanes by one number or of each by its own."""
        counts = [bits] * self.lanes if isinstance(bits, int) else bits
        return self._with(self._builder.lshr(self.value, _constant(self.element, counts)))

    def shift_right_signed(self, bits: int) -> Vector:
        return self._with(self._builder.ashr(self.value, self._other(bits)))

    def rotate_left(self, bits: int) -> Vector:
        name = f"llvm.fshl.{self._suffix()}"
        counts = self._other(bits % self.element.width)
        return self._call(name, self.value.type, self.value, self.value, counts)

    def minimum_unsigned(self, other: Vector | int) -> Vector:
        name = f"llvm.umin.{self._suffix()}"
        return self._call(name, self.value.type, self.value, self._other(other))

    def maximum_unsigned(self, other: Vector | int) -> Vector:
        name = f"llvm.umax.{self._suffix()}"
        return self._call(name, self.value.type, self.value, self._other(other))

    def largest_unsigned(self) -> Scalar:
        """The largest lane."""
        name = f"llvm.vector.reduce.umax.{self._suffix()}"
        return self._call(name, self.element, self.value).value

    def to_float(self) -> Vector:
        """float32 of each signed lane, rounded to nearest."""
        return self._with(self._builder.sitofp(self.value, ir.VectorType(F32, self.lanes)))

    def nearest(self) -> Vector:
        """int32 nearest to each float32 lane, ties to even."""
        result = ir.VectorType(I32, self.lanes)
        return self._call(f"llvm.lrint.v{self.lanes}i32.{self._suffix()}", result, self.value)

    def as_lanes(self, element: Element, lanes: int) -> Vector:
        """The same bits as other lanes."""
        return self._with(self._builder.bitcast(self.value, ir.VectorType(element, lanes)))

    def truncate(self, element: Element) -> Vector:
        """The low bits of each lane."""
        return self._with(self._builder.trunc(self.value, ir.VectorType(element, self.lanes)))

    def extend_signed(self, element: Element) -> Vector:
        return self._with(self._builder.sext(self.value, ir.VectorType(element, self.lanes)))

    def pick(self, indices: Sequence[int], other: Vector | None = None) -> Vector:
        """The lanes of this vector, followed by those of `other`, at `indices`."""
        second = self.value if other is None else other.value
        mask = _constant(I32, indices)
        return self._with(self._builder.shuffle_vector(self.value, second, mask))


class Emitter:
    """Writes loads, stores and loops at the place where a kernel is being compiled."""

    __slots__ = ("builder",)

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def constant(self, element: Element, values: Sequence[float]) -> Vector:
        return Vector(self.builder, _constant(element, values))

    def broadcast(self, scalar: Scalar, lanes: int) -> Vector:
        kind = ir.VectorType(scalar.type, lanes)
        first = self.builder.insert_element(
            ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0)
        )
        return Vector(self.builder, first).pick([0] * lanes)

    def insert(self, vector: Vector, scalar: Scalar, lane: int) -> Vector:
        """`vector` with one lane replaced."""
        value = self.builder.insert_element(vector.value, scalar, ir.Constant(I32, lane))
        return Vector(self.builder, value)

    def integer(self, value: int) -> Scalar:
        return ir.Constant(I64, value)

    def at(self, pointer: Pointer, offset: Scalar | int, unit_bytes: int = 1) -> Pointer:
        """The address `offset` units behind `pointer`."""
        if isinstance(offset, int):
            distance = self.integer(offset * unit_bytes)
        else:
            distance = self.builder.mul(offset, self.integer(unit_bytes))
        return self.builder.gep(pointer, [distance])

    def load(self, pointer: Pointer, element: Element, lanes: int, offset_bytes: int = 0) -> Vector:
        """A vector from any address."""
        kind = ir.VectorType(element, lanes).as_pointer()
        place = self.builder.bitcast(self.at(pointer, offset_bytes), kind)
        return Vector(self.builder, self.builder.load(place, align=1))

    def load_scalar(self, pointer: Pointer, element: Element) -> Scalar:
        return self.builder.load(self.builder.bitcast(pointer, element.as_pointer()), align=1)

    def store(self, vector: Vector, pointer: Pointer, offset_bytes: int = 0) -> None:
        place = self.builder.bitcast(self.at(pointer, offset_bytes), vector.value.type.as_pointer())
        self.builder.store(vector.value, place, align=1)

    def prefetch(self, pointer: Pointer) -> None:
        """Asks for the cache line of an address that is read soon; any address will do."""
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        function = _declare(self.builder.module, kind, "llvm.prefetch.p0")
        # For reading, into the second-level cache, as data.
        hint = [ir.Constant(I32, value) for value in (0, 2, 1)]
        self.builder.call(function, [pointer, *hint])

    def repeat(
        self, count: int, state: list[Vector], body: Callable[[Scalar, list[Vector]], list[Vector]]
    ) -> list[Vector]:
        """`for i in range(count): state = body(i, state)` as a loop; count >= 1."""
        builder = self.builder
        before = builder.block
        head = builder.append_basic_block("head")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(self.integer(0), before)
        carried = []
        for vector in state:
            carried.append(builder.phi(vector.value.type))
            carried[-1].add_incoming(vector.value, before)
        result = body(index, [Vector(builder, phi) for phi in carried])
        following = builder.add(index, self.integer(1))
        index.add_incoming(following, builder.block)
        for phi, vector in zip(carried, result, strict=True):
            phi.add_incoming(vector.value, builder.block)
        more = builder.icmp_signed("<", following, self.integer(count))
        builder.cbranch(more, head, after)
        builder.position_at_end(after)
        return result

    def at_most(self, scalar: Scalar, limit: int) -> Scalar:
        """Whether an unsigned scalar is <= limit."""
        return self.builder.icmp_unsigned("<=", scalar, ir.Constant(scalar.type, limit))


def vector_kernel(emit: Callable[..., Any]) -> Any:
    """Makes a numba intrinsic of `emit(emitter, ...)`, to be called from compiled code.

    Arrays arrive in `emit` as addresses of their first byte and must be contiguous, integers as
    64-bit scalars.  The result is a boolean where `emit` is annotated to return a `Scalar`.
    """
    declared = inspect.signature(emit)
    returns = types.boolean if declared.return_annotation == "Scalar" else types.void

    def typed(typing_context: Any, *arguments: Any) -> Any:
        kinds = [kind if isinstance(kind, types.Array) else types.int64 for kind in arguments]
        signature = returns(*kinds)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            passed = []
            for kind, value in zip(signature.args, values, strict=True):
                if isinstance(kind, types.Array):
                    data = context.make_array(kind)(context, builder, value).data
                    passed.append(builder.bitcast(data, I8.as_pointer()))
                else:
                    passed.append(value)
            result = emit(Emitter(builder), *passed)
            return context.get_dummy_value() if result is None else result

        return signature, generate

    # numba binds the arguments of a call by the names of this signature.
    names = ["typing_context", *list(declared.parameters)[1:]]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    typed.__name__ = typed.__qualname__ = emit.__name__
    typed.__module__ = emit.__module__
    return intrinsic(typed)


def transpose(rows: Sequence[Vector]) -> list[Vector]:
    """The n vectors of n lanes whose lane i of vector j is lane j of `rows[i]`."""
    grid = list(rows)
    size = len(grid)
    step = size // 2
    while step:
        low = [lane if not lane & step else size + lane - step for lane in range(size)]
        high = [lane + step if not lane & step else size + lane for lane in range(size)]
        for i in range(size):
            if not i & step:
                a, b = grid[i], grid[i + step]
                grid[i], grid[i + step] = a.pick(low, b), a.pick(high, b)
        step //= 2
    return grid


def warm() -> None:
    """Nothing to do: the layer is compiled into the kernels that use it."""
