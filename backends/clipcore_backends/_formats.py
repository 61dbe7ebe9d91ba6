"""Facts about the floating-point formats that clipcore clips."""

from typing import NamedTuple

__all__ = ["COMPONENT", "FORMATS", "Format"]


class Format(NamedTuple):
    """One binary floating-point format."""

    precision: int
    """Bits of the significand, the implicit one included."""
    smallest: int
    """The smallest subnormal is ``2**smallest``."""
    top: int
    """Every finite value is below ``2**top``."""

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of one rounding to nearest, u."""
        return 2.0**-self.precision

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number of full precision."""
        return 2.0 ** (self.smallest + self.precision - 1)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float((2**self.precision - 1) * 2 ** (self.top - self.precision))


FORMATS = {
    "float16": Format(11, -24, 16),
    "bfloat16": Format(8, -133, 128),
    "float32": Format(24, -149, 128),
    "float64": Format(53, -1074, 1024),
}

# A complex number is clipped component by component.
COMPONENT = {name: name for name in FORMATS} | {"complex64": "float32", "complex128": "float64"}
