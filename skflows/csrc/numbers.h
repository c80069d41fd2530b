/* 1 / k!, of Taylor's series. */
static const REAL NAME(factorials)[] = {
    1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
    1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600};

/* 1 / sqrt(x) for normal x > 0. A third of the time of a root and a division. */
INLINE REAL NAME(reciprocal_root)(REAL x)
{
    /* Half the logarithm, with its sign turned, is half of the bits, nearly. */
    BITS bits;
    memcpy(&bits, &x, sizeof bits);
    bits = MAGIC - (bits >> 1);
    REAL root;
    memcpy(&root, &bits, sizeof root);
    for (int k = 0; k < NEWTON_STEPS; k++)
        root += root * ((REAL)0.5 - (REAL)0.5 * x * root * root);
    return root;
}

/* exp(x) for x <= 0, and for a few above, at least the smallest normal number. */
INLINE REAL NAME(exponential)(REAL x)
{
    x = x < LEAST_EXPONENT ? LEAST_EXPONENT : x;
    /* x = power log(2) + rest. The shift rounds to a whole number, and leaves it in the last bits. */
    REAL shifted = x * (REAL)1.4426950408889634 + SHIFT;
    REAL power = shifted - SHIFT;
    REAL rest = x - power * LOG_2_HIGH - power * LOG_2_LOW;
    REAL sum = NAME(factorials)[EXP_TERMS];
    for (int k = EXP_TERMS - 1; k >= 0; k--)
        sum = sum * rest + NAME(factorials)[k];
    BITS bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << MANTISSA) + BITS_OF_ONE;
    REAL scale; /* two to that power */
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

/* atanh(s) for |s| <= 1/3. */
INLINE REAL NAME(area_tangent)(REAL s)
{
    REAL s2 = s * s, sum = 0;
    for (int k = ATANH_TERMS; k > 0; k--)
        sum = (sum + (REAL)1 / (2 * k + 1)) * s2;
    return s + s * sum;
}

/* log(x) for normal x > 0; nan of what is not finite. */
INLINE REAL NAME(logarithm)(REAL x)
{
    BITS bits;
    memcpy(&bits, &x, sizeof bits);
    SIGNED power = (SIGNED)(bits - BITS_OF_ROOT) >> MANTISSA;
    bits -= (BITS)power << MANTISSA;
    REAL rest; /* between the roots of 1/2 and of 2 */
    memcpy(&rest, &bits, sizeof rest);
    REAL log_rest = 2 * NAME(area_tangent)((rest - 1) / (rest + 1));
    return log_rest + power * LOG_2_LOW + power * LOG_2_HIGH + (x - x);
}

/* log(1 + exp(x)), and its derivative. */
INLINE REAL NAME(softplus)(REAL x, REAL *sigmoid)
{
    REAL small = NAME(exponential)(x > 0 ? -x : x);
    *sigmoid = (x > 0 ? 1 : small) / (1 + small);
    return (x > 0 ? x : 0) + 2 * NAME(area_tangent)(small / (2 + small));
}

/* Adds the values of a tile to sums that have begun, or begins them. */
INLINE void NAME(add_up)(int begun, ptrdiff_t width, const REAL *values, REAL *sums)
{
    if (begun)
        EACH sums[j] += values[j];
    else
        EACH sums[j] = values[j];
}

/* Of the values of a tile, which it spends. Halves of constant length: a compiler makes vectors. */
INLINE REAL NAME(sum)(REAL *values)
{
#define FOLD(half)                       \
    for (int j = 0; j < (half); j++)     \
        values[j] += values[j + (half)];
    FOLD(TILE / 2)
    FOLD(TILE / 4)
    FOLD(TILE / 8)
    for (int j = 1; j < TILE / 8; j++)
        values[0] += values[j];
#undef FOLD
    return values[0];
}
