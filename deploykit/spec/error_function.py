"""The error function on arrays, to the last digits of float64.

Source: fdlibm, s_erf.c (Sun Microsystems, 1993): one rational approximation per interval of |x|.
"""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import AnyArray, Float64Array

BLOCK_ELEMENTS = 1 << 14
"""Elements worked on at a time, so that temporaries stay in cache."""

LAST = 6.0
"""erf(x) rounds to 1 from here on."""

OFFSET = 8.45062911510467529297e-01
"""erf(1), rounded to float32."""

NEAR_ZERO = (
    (
        1.28379167095512558561e-01,
        -3.25042107247001499370e-01,
        -2.84817495755985104766e-02,
        -5.77027029648944159157e-03,
        -2.37630166566501626084e-05,
    ),
    (
        1.0,
        3.97917223959155352819e-01,
        6.50222499887672944485e-02,
        5.08130628187576562776e-03,
        1.32494738004321644526e-04,
        -3.96022827877536812320e-06,
    ),
)
"""(erf(x) - x) / x in x^2, |x| < 0.84375; numerator, then denominator, lowest power first."""

NEAR_ONE = (
    (
        -2.36211856075265944077e-03,
        4.14856118683748331666e-01,
        -3.72207876035701323847e-01,
        3.18346619901161753674e-01,
        -1.10894694282396677476e-01,
        3.54783043256182359371e-02,
        -2.16637559486879084300e-03,
    ),
    (
        1.0,
        1.06420880400844228286e-01,
        5.40397917702171048937e-01,
        7.18286544141962662868e-02,
        1.26171219808761642112e-01,
        1.36370839120290507362e-02,
        1.19844998467991074170e-02,
    ),
)
"""erf(x) - OFFSET in |x| - 1, |x| < 1.25."""

MIDDLE = (
    (
        -9.86494403484714822705e-03,
        -6.93858572707181764372e-01,
        -1.05586262253232909814e01,
        -6.23753324503260060396e01,
        -1.62396669462573470355e02,
        -1.84605092906711035994e02,
        -8.12874355063065934246e01,
        -9.81432934416914548592e00,
    ),
    (
        1.0,
        1.96512716674392571292e01,
        1.37657754143519042600e02,
        4.34565877475229228821e02,
        6.45387271733267880336e02,
        4.29008140027567833386e02,
        1.08635005541779435134e02,
        6.57024977031928170135e00,
        -6.04244152148580987438e-02,
    ),
)
"""ln(x * erfc(x)) + x^2 + 0.5625 in 1 / x^2, |x| < 1 / 0.35."""

FAR = (
    (
        -9.86494292470009928597e-03,
        -7.99283237680523006574e-01,
        -1.77579549177547519889e01,
        -1.60636384855821916062e02,
        -6.37566443368389627722e02,
        -1.02509513161107724954e03,
        -4.83519191608651397019e02,
    ),
    (
        1.0,
        3.03380607434824582924e01,
        3.25792512996573918826e02,
        1.53672958608443695994e03,
        3.19985821950859553908e03,
        2.55305040643316442583e03,
        4.74528541206955367215e02,
        -2.24409524465858183362e01,
    ),
)
"""The same, |x| < 6."""

Rational = tuple[tuple[float, ...], tuple[float, ...]]


def erf(values: AnyArray) -> AnyArray:
    """2 / sqrt(pi) * integral of exp(-t^2) from 0 to x, in the type of x; computed in float64."""
    flat = np.ascontiguousarray(values).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, flat.size, BLOCK_ELEMENTS):
        part = slice(start, start + BLOCK_ELEMENTS)
        result[part] = _block(flat[part].astype(np.float64, copy=False))
    return result.reshape(values.shape)


def _block(values: Float64Array) -> Float64Array:
    size = np.abs(values)
    result = np.where(np.isnan(size), size, 1.0)
    near = size < 0.84375
    x = size[near]
    result[near] = x + x * _quotient(NEAR_ZERO, x * x)
    one = ~near & (size < 1.25)
    result[one] = OFFSET + _quotient(NEAR_ONE, size[one] - 1.0)
    middle = (size >= 1.25) & (size < 1 / 0.35)
    result[middle] = _through_logarithm(MIDDLE, size[middle])
    far = (size >= 1 / 0.35) & (size < LAST)
    result[far] = _through_logarithm(FAR, size[far])
    signed: Float64Array = np.copysign(result, values)
    return signed


def _through_logarithm(rational: Rational, x: Float64Array) -> Float64Array:
    """1 - exp(-x^2 - 0.5625 + R / S) / x."""
    square = x * x
    return np.asarray(1.0 - np.exp(-square - 0.5625 + _quotient(rational, 1.0 / square)) / x)


def _quotient(rational: Rational, x: Float64Array) -> Float64Array:
    return np.asarray(_polynomial(rational[0], x) / _polynomial(rational[1], x))


def _polynomial(coefficients: tuple[float, ...], x: Float64Array) -> Float64Array:
    """Horner's rule, lowest power first."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += coefficient
    return value
