/* A rational-quadratic spline. Formulas are those of _spline_steps.py and _rational.py, under the same
   names.

   Its passes take (n_blocks, n, n_alike) as sizes. A block has n values in each tensor, or n of each
   parameter; as many as are alike share n log-slopes, which are their sums, or gradients of these. */

#ifndef SPLINE
#define SPLINE
typedef struct {
    int n_bins;
    double bound, least, shared, unit_slope, min_derivative;
} Spline;
#endif

INLINE Spline NAME(spline_of)(const double *settings)
{
    return (Spline){(int)settings[0], settings[1], settings[2], settings[3], settings[4], settings[5]};
}

typedef struct {
    REAL parts[2 * MAX_BINS][TILE]; /* exp(logit - the largest), of all bins along both axes */
    REAL per_part[2][TILE];         /* what makes shares of them */
    REAL clamped[TILE];
    REAL number[TILE], corner[2][TILE], size[2][TILE], raw[2][TILE]; /* as of a Bin */
} NAME(Tile);

/* The bin of each value, found along one of the axes. */
INLINE void NAME(locate)(NAME(Tile) *a, const Spline *spline, int along, ptrdiff_t width,
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

/* The fraction of its bin at which a value along z, the rise from the bin's lower end, is. */
INLINE REAL NAME(root)(REAL rise, REAL height, REAL slope, REAL d0, REAL d1)
{
    REAL excess = rise * (d1 + d0 - 2 * slope);
    REAL q = height * (slope - d0) + excess, b = height * d0 - excess;
    REAL c = -slope * rise, discriminant = b * b - 4 * q * c;
    discriminant = discriminant < TINY ? TINY : discriminant;
    REAL t = 2 * c / (-b - SQUARE_ROOT(discriminant));
    return CHOOSE(t, 0, 1);
}

/* x, params -> z, log_slope, or back. */
INLINE void NAME(spline_map)(const double *settings, const ptrdiff_t *sizes, void *const *tensors,
                             int inverse)
{
    const Spline own = NAME(spline_of)(settings), *spline = &own;
    const ptrdiff_t n = sizes[1];
    const REAL *from = tensors[0], *params = tensors[1];
    REAL *restrict to = tensors[2];
    NAME(Tile) a;
    for (ptrdiff_t block = 0; block < sizes[0]; block++, params += (3 * spline->n_bins - 1) * n) {
        REAL *restrict log_slope = (REAL *)tensors[3] + block / sizes[2] * n;
        TILES(n) {
            REAL slopes[TILE];
            NAME(locate)(&a, spline, inverse, width, from, params + start, n);
            EACH {
                REAL unused;
                REAL d0 = NAME(slope_at)(&a, spline, 0, j, &unused);
                REAL d1 = NAME(slope_at)(&a, spline, 1, j, &unused);
                REAL w = a.size[0][j], h = a.size[1][j], slope = h / w;
                REAL t = inverse ? NAME(root)(a.clamped[j] - a.corner[1][j], h, slope, d0, d1)
                                 : NAME(fraction)(&a, j);
                NAME(Terms) at = NAME(terms)(t, slope, d0, d1);
                REAL mapped = inverse ? a.corner[0][j] + w * t : a.corner[1][j] + h * at.share;
                REAL steepness = NAME(logarithm)(at.steep);
                int inside = from[j] == a.clamped[j];
                to[j] = inside ? mapped : from[j];
                slopes[j] = inside ? (inverse ? -steepness : steepness) : 0 * from[j];
            }
            NAME(add_up)(block % sizes[2] > 0, width, slopes, log_slope);
            from += width, to += width, log_slope += width;
        }
    }
}

CLONES static void NAME(spline)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    NAME(spline_map)(settings, sizes, tensors, 0);
}

CLONES static void NAME(spline_inverse)(const double *settings, const ptrdiff_t *sizes,
                                        void *const *tensors)
{
    NAME(spline_map)(settings, sizes, tensors, 1);
}

CLONES static void NAME(spline_backward)(const double *settings, const ptrdiff_t *sizes,
                                         void *const *tensors)
{
    const Spline own = NAME(spline_of)(settings), *spline = &own;
    const ptrdiff_t n = sizes[1];
    const REAL *x = tensors[0], *params = tensors[1];
    const REAL *grad_z = tensors[2];
    REAL *restrict grad_x = tensors[4], *restrict grad_params = tensors[5];
    const int k = spline->n_bins, n_params = 3 * k - 1;
    const REAL bound = spline->bound, least = spline->least, shared = spline->shared;
    NAME(Tile) a;
    REAL g_corner[2][TILE], g_size[2][TILE], g_raw[2][TILE], minus_mean[TILE];
    for (ptrdiff_t block = 0; block < sizes[0]; block++) {
        const REAL *grad_log_slope = (const REAL *)tensors[3] + block / sizes[2] * n;
        TILES(n) {
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
        params += n_params * n, grad_params += n_params * n;
    }
}
