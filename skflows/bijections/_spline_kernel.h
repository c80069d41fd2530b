/* A rational-quadratic spline in one pass over its values: included for float and for double, with
   REAL as the type, BITS as the integer of its size, and NAME(f) as the name of f for it.

   Formulas are those of _spline_steps.py and _rational.py, under the same names. Values are taken in
   tiles: a step is a loop over one, of which a compiler makes vectors, and what it leaves stays in
   the nearest cache. No step looks at two values, and the tests see to it that compilers give each
   the same bits in any tile. */

#define EACH for (int j = 0; j < width; j++)
#define CHOOSE(from, low, high) ((from) < (low) ? (low) : (from) > (high) ? (high) : (from))

/* 1 / k!, of Taylor's series. */
static const REAL NAME(factorials)[] = {
    1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
    1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600};

/* exp(x) for x <= 0, at least the smallest normal number. */
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

typedef struct {
    REAL parts[2 * MAX_BINS][TILE]; /* exp(logit - the largest), of all bins along both axes */
    REAL per_part[2][TILE];         /* what makes shares of them */
    REAL clamped[TILE];
    REAL number[TILE], corner[2][TILE], size[2][TILE], raw[2][TILE]; /* as of a Bin */
} NAME(Tile);

/* The bin of each value, found along one of the axes. */
INLINE void NAME(locate)(NAME(Tile) *a, const Spline *spline, int along, int width,
                         const REAL *values, const REAL *params, ptrdiff_t n)
{
    const int k = spline->n_bins;
    const REAL bound = spline->bound, least = spline->least, shared = spline->shared;
    REAL largest[TILE], total[TILE], knot[2][TILE];
    for (int axis = 0; axis < 2; axis++) {
        const REAL *logits = params + axis * k * n;
        EACH largest[j] = logits[j];
        for (int i = 1; i < k; i++)
            EACH largest[j] = logits[i * n + j] > largest[j] ? logits[i * n + j] : largest[j];
        EACH total[j] = 0;
        for (int i = 0; i < k; i++) {
            REAL *part = a->parts[axis * k + i];
            EACH part[j] = NAME(exponential)(logits[i * n + j] - largest[j]);
            EACH total[j] += part[j];
        }
        EACH {
            a->per_part[axis][j] = 1 / total[j];
            a->corner[axis][j] = -bound;
            a->size[axis][j] = a->parts[axis * k][j] * (shared * a->per_part[axis][j]) + least;
            knot[axis][j] = a->size[axis][j] - bound;
        }
    }
    /* A zero, hence a slope of 1, at both ends of the spline, where the identity takes over. */
    const REAL *first_raw = k > 1 ? params + 2 * k * n : params;
    EACH {
        a->clamped[j] = CHOOSE(values[j], -bound, bound);
        a->number[j] = 0;
        a->raw[0][j] = 0;
        a->raw[1][j] = k > 1 ? first_raw[j] : 0;
    }
    for (int i = 1; i < k; i++) {
        const REAL *part[2] = {a->parts[i], a->parts[k + i]};
        const int last = i == k - 1;
        const REAL *raw = params + (2 * k + i - 1) * n, *next_raw = last ? raw : raw + n;
        EACH {
            int passed = a->clamped[j] >= knot[along][j];
            a->number[j] = passed ? i : a->number[j];
            a->raw[0][j] = passed ? raw[j] : a->raw[0][j];
            a->raw[1][j] = passed ? (last ? 0 : next_raw[j]) : a->raw[1][j];
            for (int axis = 0; axis < 2; axis++) {
                REAL size = part[axis][j] * (shared * a->per_part[axis][j]) + least;
                a->corner[axis][j] = passed ? knot[axis][j] : a->corner[axis][j];
                a->size[axis][j] = passed ? size : a->size[axis][j];
                knot[axis][j] += size;
            }
        }
    }
}

/* The slope at one end of the bin of a value, and the derivative of its softplus. */
INLINE REAL NAME(slope_at)(const NAME(Tile) *a, const Spline *spline, int end, int j,
                           REAL *sigmoid)
{
    const REAL unit_slope = spline->unit_slope, min_derivative = spline->min_derivative;
    return NAME(softplus)(a->raw[end][j] + unit_slope, sigmoid) + min_derivative;
}

/* The fraction of its bin, along x, at which a value is. */
INLINE REAL NAME(fraction)(const NAME(Tile) *a, int j)
{
    REAL t = (a->clamped[j] - a->corner[0][j]) / a->size[0][j];
    return CHOOSE(t, 0, 1);
}

/* Of one value: the Terms of its bin there, and what is made of them. */
typedef struct {
    REAL bend, curve, bottom, first, second, top, share, steep;
} NAME(Terms);

INLINE NAME(Terms) NAME(terms)(REAL t, REAL slope, REAL d0, REAL d1)
{
    NAME(Terms) at;
    REAL r = 1 - t;
    at.bend = t - t * t;
    at.curve = d0 + d1 - 2 * slope;
    at.bottom = slope + at.curve * at.bend;
    at.first = d0 * r + slope * t; /* sums of what is positive: nothing cancels */
    at.second = slope * r + d1 * t;
    at.top = at.first * r + at.second * t;
    at.share = t * at.first / at.bottom;
    REAL ratio = slope / at.bottom;
    at.steep = ratio * ratio * at.top;
    return at;
}

CLONES static void NAME(forward)(const Spline *spline, ptrdiff_t n_blocks, ptrdiff_t n,
                                 void *const *tensors)
{
    const REAL *x = tensors[0], *params = tensors[1];
    REAL *restrict z = tensors[2], *restrict log_slope = tensors[3];
    NAME(Tile) a;
    for (; n_blocks--; params += (3 * spline->n_bins - 1) * n)
        for (ptrdiff_t start = 0; start < n; start += TILE) {
            const int width = n - start < TILE ? (int)(n - start) : TILE;
            NAME(locate)(&a, spline, 0, width, x, params + start, n);
            EACH {
                REAL unused;
                REAL d0 = NAME(slope_at)(&a, spline, 0, j, &unused);
                REAL d1 = NAME(slope_at)(&a, spline, 1, j, &unused);
                REAL t = NAME(fraction)(&a, j), slope = a.size[1][j] / a.size[0][j];
                NAME(Terms) at = NAME(terms)(t, slope, d0, d1);
                int inside = x[j] == a.clamped[j];
                z[j] = inside ? a.corner[1][j] + a.size[1][j] * at.share : x[j];
                log_slope[j] = inside ? NAME(logarithm)(at.steep) : 0 * x[j];
            }
            x += width, z += width, log_slope += width;
        }
}

CLONES static void NAME(inverse)(const Spline *spline, ptrdiff_t n_blocks, ptrdiff_t n,
                                 void *const *tensors)
{
    const REAL *z = tensors[0], *params = tensors[1];
    REAL *restrict x = tensors[2], *restrict log_slope = tensors[3];
    NAME(Tile) a;
    for (; n_blocks--; params += (3 * spline->n_bins - 1) * n)
        for (ptrdiff_t start = 0; start < n; start += TILE) {
            const int width = n - start < TILE ? (int)(n - start) : TILE;
            NAME(locate)(&a, spline, 1, width, z, params + start, n);
            EACH {
                REAL unused;
                REAL d0 = NAME(slope_at)(&a, spline, 0, j, &unused);
                REAL d1 = NAME(slope_at)(&a, spline, 1, j, &unused);
                REAL height = a.size[1][j], slope = height / a.size[0][j];
                REAL rise = a.clamped[j] - a.corner[1][j];
                REAL excess = rise * (d1 + d0 - 2 * slope);
                REAL q = height * (slope - d0) + excess, b = height * d0 - excess;
                REAL c = -slope * rise, discriminant = b * b - 4 * q * c;
                discriminant = discriminant < TINY ? TINY : discriminant;
                REAL t = 2 * c / (-b - SQUARE_ROOT(discriminant));
                t = CHOOSE(t, 0, 1);
                NAME(Terms) at = NAME(terms)(t, slope, d0, d1);
                int inside = z[j] == a.clamped[j];
                x[j] = inside ? a.corner[0][j] + a.size[0][j] * t : z[j];
                log_slope[j] = inside ? -NAME(logarithm)(at.steep) : 0 * z[j];
            }
            z += width, x += width, log_slope += width;
        }
}

CLONES static void NAME(backward)(const Spline *spline, ptrdiff_t n_blocks, ptrdiff_t n,
                                  void *const *tensors)
{
    const REAL *x = tensors[0], *params = tensors[1];
    const REAL *grad_z = tensors[2], *grad_log_slope = tensors[3];
    REAL *restrict grad_x = tensors[4], *restrict grad_params = tensors[5];
    const int k = spline->n_bins, n_params = 3 * k - 1;
    const REAL bound = spline->bound, least = spline->least, shared = spline->shared;
    NAME(Tile) a;
    REAL g_corner[2][TILE], g_size[2][TILE], g_raw[2][TILE], minus_mean[TILE];
    for (; n_blocks--; params += n_params * n, grad_params += n_params * n)
        for (ptrdiff_t start = 0; start < n; start += TILE) {
            const int width = n - start < TILE ? (int)(n - start) : TILE;
            NAME(locate)(&a, spline, 0, width, x, params + start, n);
            EACH {
                REAL sigmoid0, sigmoid1;
                REAL d0 = NAME(slope_at)(&a, spline, 0, j, &sigmoid0);
                REAL d1 = NAME(slope_at)(&a, spline, 1, j, &sigmoid1);
                REAL w = a.size[0][j], h = a.size[1][j], slope = h / w;
                REAL t = NAME(fraction)(&a, j), r = 1 - t;
                NAME(Terms) at = NAME(terms)(t, slope, d0, d1);
                int inside = x[j] == a.clamped[j];
                REAL gz = inside ? grad_z[j] : 0, gl = inside ? grad_log_slope[j] : 0;

                REAL g_rise = gz * h / at.bottom, g_top = gl / at.top, by_bottom = gl / at.bottom;
                REAL g_bottom = -2 * by_bottom - g_rise * at.share, g_curve = g_bottom * at.bend;
                REAL g_slope = g_bottom + g_rise * (t * t) + 2 * g_top * at.bend - 2 * g_curve;
                g_slope += 2 * gl / slope;
                g_raw[0][j] = (g_curve + g_rise * at.bend + g_top * r * r) * sigmoid0;
                g_raw[1][j] = (g_curve + g_top * (t * t)) * sigmoid1;
                REAL half_g_t = g_top * (at.second - at.first) - by_bottom * at.curve * (r - t);
                REAL g_x = gz * at.steep + 2 * half_g_t / w;
                grad_x[j] = inside ? g_x : grad_z[j];
                REAL g_height = g_slope / w;
                g_corner[0][j] = -g_x;
                g_corner[1][j] = gz;
                g_size[0][j] = -g_x * t - g_height * slope;
                g_size[1][j] = g_height + gz * at.share;
            }
            REAL *grad = grad_params + start;
            for (int axis = 0; axis < 2; axis++) {
                EACH {
                    REAL minus_before = -bound - a.corner[axis][j] + least * a.number[j];
                    minus_mean[j] = g_corner[axis][j] * minus_before
                                  - g_size[axis][j] * (a.size[axis][j] - least);
                    g_corner[axis][j] *= shared;
                    g_size[axis][j] *= shared;
                }
                for (int i = 0; i < k; i++, grad += n)
                    EACH {
                        REAL g = i < a.number[j] ? g_corner[axis][j] : 0;
                        g = i == a.number[j] ? g_size[axis][j] : g;
                        REAL share = a.parts[axis * k + i][j] * a.per_part[axis][j];
                        grad[j] = (g + minus_mean[j]) * share;
                    }
            }
            for (int i = 1; i < k; i++, grad += n)
                EACH {
                    REAL g = i == a.number[j] + 1 ? g_raw[1][j] : 0;
                    grad[j] = i == a.number[j] ? g_raw[0][j] : g;
                }
            x += width, grad_z += width, grad_log_slope += width, grad_x += width;
        }
}

#undef EACH
#undef CHOOSE
#undef NAME
#undef REAL
#undef BITS
#undef SIGNED
#undef MANTISSA
#undef BITS_OF_ONE
#undef BITS_OF_ROOT
#undef SHIFT
#undef SQUARE_ROOT
#undef TINY
#undef LEAST_EXPONENT
#undef LOG_2_HIGH
#undef LOG_2_LOW
#undef EXP_TERMS
#undef ATANH_TERMS
