/* Elementary functions that a compiler can vectorise. */

/* 1 / k!, the coefficients of the Taylor series of exp. */
static const REAL NAME(factorials)[] = {
    1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
    1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600};

/* Return exp(x) for x <= 0 or slightly above, at least the smallest normal number. */
INLINE REAL NAME(exponential)(REAL x)
{
    x = x < LEAST_EXPONENT ? LEAST_EXPONENT : x;
    /* x = power log(2) + rest. Adding SHIFT rounds to an integer and leaves it in the last bits. */
    REAL shifted = x * (REAL)1.4426950408889634 + SHIFT;
    REAL power = shifted - SHIFT;
    REAL rest = x - power * LOG_2_HIGH - power * LOG_2_LOW;
    REAL sum = NAME(factorials)[EXP_TERMS];
    for (int k = EXP_TERMS - 1; k >= 0; k--)
        sum = sum * rest + NAME(factorials)[k];
    BITS bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << MANTISSA) + BITS_OF_ONE;
    REAL scale; /* 2^power */
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

/* Return atanh(s) for |s| <= 1/3. */
INLINE REAL NAME(area_tangent)(REAL s)
{
    REAL s2 = s * s, sum = 0;
    for (int k = ATANH_TERMS; k > 0; k--)
        sum = (sum + (REAL)1 / (2 * k + 1)) * s2;
    return s + s * sum;
}

/* Return log(x) for normal x > 0; NaN if x is not finite. */
INLINE REAL NAME(logarithm)(REAL x)
{
    /* x = 2^power rest. The exponent, to which the format adds a bias, is added to the last bits of
       SHIFT: AVX2 has no conversion of 64-bit integers. */
    const REAL shift = SHIFT;
    BITS bits, shifted_bits;
    memcpy(&bits, &x, sizeof bits);
    memcpy(&shifted_bits, &shift, sizeof shift);
    BITS exponent = (bits + (BITS_OF_ONE - BITS_OF_ROOT)) >> MANTISSA;
    bits -= (exponent << MANTISSA) - BITS_OF_ONE;
    shifted_bits += exponent;
    REAL rest, shifted; /* rest is between sqrt(1/2) and sqrt(2) */
    memcpy(&rest, &bits, sizeof rest);
    memcpy(&shifted, &shifted_bits, sizeof shifted);
    REAL power = shifted - shift - (BITS_OF_ONE >> MANTISSA);
    REAL log_rest = 2 * NAME(area_tangent)((rest - 1) / (rest + 1));
    return log_rest + power * LOG_2_LOW + power * LOG_2_HIGH + (x - x);
}

/* Return log(1 + exp(x)) and store its derivative. */
INLINE REAL NAME(softplus)(REAL x, REAL *sigmoid)
{
    REAL small = NAME(exponential)(x > 0 ? -x : x);
    *sigmoid = (x > 0 ? 1 : small) / (1 + small);
    return (x > 0 ? x : 0) + 2 * NAME(area_tangent)(small / (2 + small));
}

/* Add the values of a block to running sums, or start them. */
INLINE void NAME(accumulate)(int started, ptrdiff_t width, const REAL *values, REAL *sums)
{
    if (started)
        EACH sums[j] += values[j];
    else
        EACH sums[j] = values[j];
}
