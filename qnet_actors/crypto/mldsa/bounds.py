"""Worst cases of the numbers in the verification kernels, by running their own code on intervals.

`kernels.ring` computes on vectors of whatever kind.  Here each lane is the interval of the values
that it can take, so what is bounded is the code that is compiled, with its tables.  Anything that
could leave its integer type raises `BoundExceeded`.

Intervals alone would not do for `ring.multiply`, where b * z and n * q both wrap around modulo 2^32
and only their difference is small.  It is recognised by its operations, and bounded by how far the
float32 quotient n may be from b * z / q:

    |b z - n q| <= q / 2 + |b z| * ((1 + u_b)(1 + u_z)(1 + u) - 1)

where u = 2^-24 is the unit roundoff of float32, u_b is that of converting b (0 where |b| <= 2^24),
and u_z the relative error of the stored z / q, computed from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from qnet_actors.kernels import mldsa, ring
from qnet_actors.kernels.vectors import F32, I32, I64

_ROUNDOFF: Final = Fraction(1, 2**24)
_FLOAT_EXACT: Final = 2**24
_HALF: Final = Fraction(1, 2)


class BoundExceeded(ArithmeticError):
    """A number could leave the type that holds it."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The values that one lane can take."""

    low: Fraction
    high: Fraction

    @property
    def magnitude(self) -> Fraction:
        return max(-self.low, self.high)


def _between(low: int, high: int) -> Interval:
    return Interval(Fraction(low), Fraction(high))


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """b * factor modulo 2^32, which means something only beside a multiple of q."""

    b: Lanes
    factors: list[int]

    def __sub__(self, other: _Multiple) -> Lanes:
        if other.b is not self.b or other.factors != self.factors:
            raise BoundExceeded("a product less a multiple of q that belongs to another")
        return other.remainder()


@dataclass(frozen=True, slots=True)
class _Float:
    """b as float32, times the stored factor / q where `quotients` are given."""

    b: Lanes
    quotients: list[float] | None = None

    def __mul__(self, quotient: float | _Quotients) -> _Float:
        if isinstance(quotient, _Quotients):
            return _Float(self.b, quotient.values)
        return _Float(self.b, [quotient] * len(self.b.lanes_))

    def nearest(self) -> _Nearest:
        if self.quotients is None:
            raise BoundExceeded("rounded without having been divided")
        return _Nearest(self.b, self.quotients)


@dataclass(frozen=True, slots=True)
class _Quotients:
    """Stored float32 factors / q, one a lane."""

    values: list[float]


@dataclass(frozen=True, slots=True)
class _Nearest:
    b: Lanes
    quotients: list[float]

    def __mul__(self, q: int) -> _Multiple:
        if q != ring.Q:
            raise BoundExceeded("a quotient times something else than q")
        # The factor whose quotient was stored: a float32 tells all centred residues apart.
        factors = [round(Fraction(quotient) * q) for quotient in self.quotients]
        return _Multiple(self.b, self.quotients, factors)


@dataclass(frozen=True, slots=True)
class _Multiple:
    """n * q, n being the rounded quotient."""

    b: Lanes
    quotients: list[float]
    factors: list[int]

    def remainder(self) -> Lanes:
        rows = zip(self.b.lanes_, self.quotients, self.factors, strict=True)
        return Lanes([_remainder(lane.magnitude, ratio, factor) for lane, ratio, factor in rows])


def _remainder(b: Fraction, quotient: float, factor: int) -> Interval:
    exact = Fraction(factor, ring.Q)
    stored = abs(Fraction(quotient) / exact - 1) if factor else Fraction(0)
    converted = Fraction(0) if b <= _FLOAT_EXACT else _ROUNDOFF
    relative = (1 + converted) * (1 + stored) * (1 + _ROUNDOFF) - 1
    whole = b * abs(exact)
    if whole * (1 + relative) + 1 >= 2**31:
        raise BoundExceeded("a quotient leaves int32")
    bound = ring.Q * (_HALF + whole * relative)
    return Interval(-bound, bound)


class Lanes:
    """What `kernels.vectors.Vector` is for the kernels: here, intervals of int32 or int64."""

    def __init__(self, lanes: Sequence[Interval], bits: int = 32) -> None:
        limit = 1 << (bits - 1)
        for lane in lanes:
            if lane.low < -limit or lane.high >= limit:
                raise BoundExceeded(f"{float(lane.magnitude / ring.Q):.1f} q leaves int{bits}")
        self.lanes_ = list(lanes)
        self.bits = bits

    @property
    def lanes(self) -> int:
        return len(self.lanes_)

    def emitter(self) -> Lanes:
        return self

    def constant(self, element: Any, values: list[Any]) -> _Quotients | list[int]:
        return _Quotients(values) if element == F32 else values

    def _zip(self, other: Any, combine: Callable[[Interval, Interval], Interval]) -> Lanes:
        if isinstance(other, int):
            other = Lanes([_between(other, other)] * self.lanes, 64)
        pairs = zip(self.lanes_, other.lanes_, strict=True)
        return Lanes([combine(a, b) for a, b in pairs], self.bits)

    def __add__(self, other: Lanes | int) -> Lanes:
        return self._zip(other, lambda a, b: Interval(a.low + b.low, a.high + b.high))

    def __sub__(self, other: Any) -> Lanes:
        if isinstance(other, _Multiple):
            if other.b is not self or set(other.factors) != {1}:
                raise BoundExceeded("less a multiple of q that belongs to another")
            return other.remainder()
        return self._zip(other, lambda a, b: Interval(a.low - b.high, a.high - b.low))

    def __mul__(self, other: Any) -> Any:
        if self.bits == 32:
            factors = [other] * self.lanes if isinstance(other, int) else other
            return _Wrapped(self, factors)
        if other == ring.Q_INVERSE:
            return _Low(self.lanes)
        return self._zip(other, _times)

    def to_float(self) -> _Float:
        return _Float(self)

    def minimum_unsigned(self, other: Lanes) -> Lanes:
        """Of r and r + q, as `canonical` takes it: right where |r| < q."""
        for a, b in zip(self.lanes_, other.lanes_, strict=True):
            if a.magnitude >= ring.Q or b != Interval(a.low + ring.Q, a.high + ring.Q):
                raise BoundExceeded("a remainder is not below q")
        return Lanes([_between(0, ring.Q - 1)] * self.lanes)

    def as_lanes(self, element: Any, lanes: int) -> Any:
        if element == I64:
            return _Pairs(self)
        if element == I32 and lanes == 2 * self.lanes:
            # The low halves are zero by the choice of t; only the high ones are used further.
            halves = []
            for lane in self.lanes_:
                high = Interval(lane.low / Fraction(2**32), lane.high / Fraction(2**32))
                halves += [_between(0, 0), high]
            return Lanes(halves)
        raise BoundExceeded("lanes of an unknown kind")

    def pick(self, indices: Sequence[int], other: Lanes | None = None) -> Lanes:
        both = self.lanes_ + (self if other is None else other).lanes_
        return Lanes([both[index] for index in indices], self.bits)


def _times(a: Interval, b: Interval) -> Interval:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(corners), max(corners))


class _Pairs:
    """int32 lanes seen as int64: even or odd ones, once they are shifted into place."""

    def __init__(self, lanes: Lanes, first: int = 1) -> None:
        self._lanes = lanes
        self._first = first

    def __lshift__(self, bits: int) -> _Pairs:
        return _Pairs(self._lanes, 0)

    def shift_right_signed(self, bits: int) -> Lanes:
        return Lanes(self._lanes.lanes_[self._first :: 2], 64)


class _Low:
    """t of Algorithm 49: the low 32 bits of a product, as a signed number."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes

    def __lshift__(self, bits: int) -> _Low:
        return self

    def shift_right_signed(self, bits: int) -> Lanes:
        return Lanes([_between(-(2**31), 2**31 - 1)] * self._lanes, 64)


def polynomial(low: int, high: int) -> list[Any]:
    """A polynomial whose coefficients lie between `low` and `high`."""
    return [Lanes([_between(low, high)] * ring.LANES) for _ in range(ring.VECTORS)]


def largest(vectors: Sequence[Any]) -> Fraction:
    """The largest magnitude of any coefficient, in units of q."""
    magnitude = max(lane.magnitude for vector in vectors for lane in vector.lanes_)
    return Fraction(magnitude / ring.Q)


def worst_cases(gamma1: int = mldsa.GAMMA1) -> dict[str, Fraction]:
    """The largest magnitude, in units of q, after each step; int32 holds 256.25 q.

    Raises `BoundExceeded` where a step could overflow.
    """
    z = ring.ntt(polynomial(-(gamma1 - 1), gamma1))
    c = ring.ntt(polynomial(-1, 1))
    t1 = ring.ntt(polynomial(0, ((1 << mldsa.T1_BITS) - 1) << mldsa.D))
    scale = ring.centred(ring.SCALE)
    for scaled in (t1, polynomial(0, ring.Q - 1)):
        for vector in scaled:
            ring.canonical(ring.multiply(vector, scale))
    cached = polynomial(0, ring.Q - 1)
    hats = [*[z] * mldsa.L, c]
    sums = [
        ring.sum_of_products([(cached[v], hat[v]) for hat in hats]) for v in range(ring.VECTORS)
    ]
    w = ring.inverse_ntt(sums)
    for vector in w:
        ring.canonical(vector)
    return {
        "NTT(z)": largest(z),
        "NTT(c)": largest(c),
        "NTT(t1 2^13)": largest(t1),
        "sum of products": largest(sums),
        "inverse NTT": largest(w),
    }
