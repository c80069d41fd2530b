/* The monotone rational-quadratic spline.

   Settings: tail bound, smallest size of a bin, smallest slope at a knot, and the raw slope that is
   added so that parameters of 0 give a slope of 1. Parameters of a feature with k bins: k logits of
   the widths, k of the heights, k - 1 raw slopes at the inner knots. Formulas and names are those of
   bijections/_spline.py and bijections/_rational_quadratic.py. */

#ifndef SPLINE
#define SPLINE
typedef struct {
    int n_bins;
    double bound, min_size, min_slope, unit_slope, shared; /* shared: what the softmax distributes */
} Spline;

static Spline spline_of(const double *settings, const Size *size)
{
    const int n_bins = (int)((size->n_params + 1) / 3);
    const double shared = 2 * settings[0] - n_bins * settings[1];
    return (Spline){n_bins, settings[0], settings[1], settings[2], settings[3], shared};
}
#endif

/* The bins of a block of values. The first index of two is the axis: 0 for x, 1 for z. */
typedef struct {
    REAL exp_logits[2 * MAX_BINS][BLOCK]; /* exp(logit - max), of all bins along both axes */
    REAL normalizer[2][BLOCK];            /* 1 / their sum */
    REAL clamped[BLOCK];                  /* the values, clamped to the spline's interval */
    REAL number[BLOCK];                   /* of the bin, from 0 */
    REAL corner[2][BLOCK], size[2][BLOCK];
    REAL raw_slope[2][BLOCK]; /* at the lower and the upper knot */
} NAME(Bins);

/* Compute what the sizes of all bins follow from. */
INLINE void NAME(find_shares)(NAME(Bins) *bins, const Spline *spline, ptrdiff_t width,
                              const REAL *params, ptrdiff_t n)
{
    const int k = spline->n_bins;
    REAL max_logit[BLOCK], total[BLOCK];
    for (int axis = 0; axis < 2; axis++) {
        const REAL *logits = params + axis * k * n;
        EACH max_logit[j] = logits[j];
        for (int i = 1; i < k; i++)
            EACH max_logit[j] = logits[i * n + j] > max_logit[j] ? logits[i * n + j] : max_logit[j];
        EACH total[j] = 0;
        for (int i = 0; i < k; i++) {
            REAL *exp_logit = bins->exp_logits[axis * k + i];
            EACH exp_logit[j] = NAME(exponential)(logits[i * n + j] - max_logit[j]);
            EACH total[j] += exp_logit[j];
        }
        EACH bins->normalizer[axis][j] = 1 / total[j];
    }
}

/* Find the bin of each value along one axis, after `find_shares`. */
INLINE void NAME(find_bins)(NAME(Bins) *bins, const Spline *spline, int axis_of_values,
                            ptrdiff_t width, const REAL *values, const REAL *params, ptrdiff_t n)
{
    const int k = spline->n_bins;
    const REAL bound = spline->bound, min_size = spline->min_size, shared = spline->shared;
    REAL knot[2][BLOCK];
    for (int axis = 0; axis < 2; axis++)
        EACH {
            bins->corner[axis][j] = -bound;
            bins->size[axis][j] =
                bins->exp_logits[axis * k][j] * (shared * bins->normalizer[axis][j]) + min_size;
            knot[axis][j] = bins->size[axis][j] - bound;
        }
    /* Both ends have a raw slope of 0, hence a slope of 1, where the identity takes over. */
    const REAL *first_raw = k > 1 ? params + 2 * k * n : params;
    EACH {
        bins->clamped[j] = CLAMP(values[j], -bound, bound);
        bins->number[j] = 0;
        bins->raw_slope[0][j] = 0;
        bins->raw_slope[1][j] = k > 1 ? first_raw[j] : 0;
    }
    for (int i = 1; i < k; i++) {
        const REAL *exp_logit[2] = {bins->exp_logits[i], bins->exp_logits[k + i]};
        const int last = i == k - 1;
        const REAL *raw = params + (2 * k + i - 1) * n, *next_raw = last ? raw : raw + n;
        EACH {
            int passed = bins->clamped[j] >= knot[axis_of_values][j];
            bins->number[j] = passed ? i : bins->number[j];
            bins->raw_slope[0][j] = passed ? raw[j] : bins->raw_slope[0][j];
            bins->raw_slope[1][j] = passed ? (last ? 0 : next_raw[j]) : bins->raw_slope[1][j];
            for (int axis = 0; axis < 2; axis++) {
                REAL size = exp_logit[axis][j] * (shared * bins->normalizer[axis][j]) + min_size;
                bins->corner[axis][j] = passed ? knot[axis][j] : bins->corner[axis][j];
                bins->size[axis][j] = passed ? size : bins->size[axis][j];
                knot[axis][j] += size;
            }
        }
    }
}

/* Return the slope at one end of the bin of value j, and store the derivative of its softplus. */
INLINE REAL NAME(slope_at)(const NAME(Bins) *bins, const Spline *spline, int end, int j, REAL *sigmoid)
{
    const REAL unit_slope = spline->unit_slope, min_slope = spline->min_slope;
    return NAME(softplus)(bins->raw_slope[end][j] + unit_slope, sigmoid) + min_slope;
}

/* Return the fraction of its bin along x at which value j is. */
INLINE REAL NAME(fraction)(const NAME(Bins) *bins, int j)
{
    REAL t = (bins->clamped[j] - bins->corner[0][j]) / bins->size[0][j];
    return CLAMP(t, 0, 1);
}

typedef struct {
    REAL bend, curve, bottom, first, second, top, share, steepness;
} NAME(Terms);

INLINE NAME(Terms) NAME(terms)(REAL t, REAL slope, REAL d0, REAL d1)
{
    NAME(Terms) at;
    REAL r = 1 - t;
    at.bend = t - t * t;
    at.curve = d0 + d1 - 2 * slope;
    at.bottom = slope + at.curve * at.bend;
    at.first = d0 * r + slope * t; /* sums of positive terms: no cancellation */
    at.second = slope * r + d1 * t;
    at.top = at.first * r + at.second * t;
    at.share = t * at.first / at.bottom;
    REAL ratio = slope / at.bottom;
    at.steepness = ratio * ratio * at.top;
    return at;
}

/* Return the fraction of a bin at which the spline has risen by `rise` from its lower end. */
INLINE REAL NAME(root)(REAL rise, REAL height, REAL slope, REAL d0, REAL d1)
{
    REAL excess = rise * (d1 + d0 - 2 * slope);
    REAL a = height * (slope - d0) + excess, b = height * d0 - excess;
    REAL c = -slope * rise, discriminant = b * b - 4 * a * c;
    discriminant = discriminant < TINY ? TINY : discriminant;
    REAL t = 2 * c / (-b - SQUARE_ROOT(discriminant));
    return CLAMP(t, 0, 1);
}

INLINE void NAME(spline_map)(const double *settings, const Size *size, void *const *arrays, int inverse)
{
    const Spline spline = spline_of(settings, size);
    const ptrdiff_t n = size->n, n_features = size->n_all_features / size->n_repeats;
    const REAL *params = arrays[1];
    NAME(Bins) bins;
    for (ptrdiff_t feature = 0; feature < n_features; feature++, params += size->n_params * n) {
        BLOCKS(n) {
            NAME(find_shares)(&bins, &spline, width, params + start, n);
            for (ptrdiff_t row = feature; row < size->n_all_features; row += n_features) {
                const REAL *from = (const REAL *)arrays[0] + row * n + start;
                REAL *restrict to = (REAL *)arrays[2] + row * n + start;
                REAL *restrict log_det = (REAL *)arrays[3] + row / size->n_features * n + start;
                REAL log_slope[BLOCK];
                NAME(find_bins)(&bins, &spline, inverse, width, from, params + start, n);
                EACH {
                    REAL unused;
                    REAL d0 = NAME(slope_at)(&bins, &spline, 0, j, &unused);
                    REAL d1 = NAME(slope_at)(&bins, &spline, 1, j, &unused);
                    REAL w = bins.size[0][j], h = bins.size[1][j], slope = h / w;
                    REAL t = inverse
                                 ? NAME(root)(bins.clamped[j] - bins.corner[1][j], h, slope, d0, d1)
                                 : NAME(fraction)(&bins, j);
                    NAME(Terms) at = NAME(terms)(t, slope, d0, d1);
                    REAL mapped =
                        inverse ? bins.corner[0][j] + w * t : bins.corner[1][j] + h * at.share;
                    REAL log_steepness = NAME(logarithm)(at.steepness);
                    int inside = from[j] == bins.clamped[j];
                    to[j] = inside ? mapped : from[j];
                    log_slope[j] = inside ? (inverse ? -log_steepness : log_steepness) : 0 * from[j];
                }
                NAME(accumulate)(row % size->n_features > 0, width, log_slope, log_det);
            }
        }
    }
}

/* x, params -> z, log_det */
CLONES static void NAME(spline_forward)(const double *settings, const Size *size, void *const *arrays)
{
    NAME(spline_map)(settings, size, arrays, 0);
}

/* z, params -> x, log_det */
CLONES static void NAME(spline_inverse)(const double *settings, const Size *size, void *const *arrays)
{
    NAME(spline_map)(settings, size, arrays, 1);
}

/* x, params, grad_z, grad_log_det -> grad_x, grad_params */
CLONES static void NAME(spline_backward)(const double *settings, const Size *size, void *const *arrays)
{
    const Spline spline = spline_of(settings, size);
    const ptrdiff_t n = size->n;
    const REAL *x = arrays[0], *params = arrays[1];
    const REAL *grad_z = arrays[2];
    REAL *restrict grad_x = arrays[4], *restrict grad_params = arrays[5];
    const int k = spline.n_bins;
    const REAL bound = spline.bound, min_size = spline.min_size, shared = spline.shared;
    NAME(Bins) bins;
    REAL g_corner[2][BLOCK], g_size[2][BLOCK], g_raw[2][BLOCK], minus_mean[BLOCK];
    for (ptrdiff_t feature = 0; feature < size->n_all_features; feature++) {
        const REAL *grad_log_det = (const REAL *)arrays[3] + feature / size->n_features * n;
        BLOCKS(n) {
            NAME(find_shares)(&bins, &spline, width, params + start, n);
            NAME(find_bins)(&bins, &spline, 0, width, x, params + start, n);
            EACH {
                REAL sigmoid0, sigmoid1;
                REAL d0 = NAME(slope_at)(&bins, &spline, 0, j, &sigmoid0);
                REAL d1 = NAME(slope_at)(&bins, &spline, 1, j, &sigmoid1);
                REAL w = bins.size[0][j], h = bins.size[1][j], slope = h / w;
                REAL t = NAME(fraction)(&bins, j), r = 1 - t;
                NAME(Terms) at = NAME(terms)(t, slope, d0, d1);
                int inside = x[j] == bins.clamped[j];
                REAL gz = inside ? grad_z[j] : 0, gl = inside ? grad_log_det[j] : 0;

                REAL g_rise = gz * h / at.bottom, g_top = gl / at.top, by_bottom = gl / at.bottom;
                REAL g_bottom = -2 * by_bottom - g_rise * at.share, g_curve = g_bottom * at.bend;
                REAL g_slope = g_bottom + g_rise * (t * t) + 2 * g_top * at.bend - 2 * g_curve;
                g_slope += 2 * gl / slope;
                g_raw[0][j] = (g_curve + g_rise * at.bend + g_top * r * r) * sigmoid0;
                g_raw[1][j] = (g_curve + g_top * (t * t)) * sigmoid1;
                REAL half_g_t = g_top * (at.second - at.first) - by_bottom * at.curve * (r - t);
                REAL g_x = gz * at.steepness + 2 * half_g_t / w;
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
                    REAL minus_before = -bound - bins.corner[axis][j] + min_size * bins.number[j];
                    minus_mean[j] = g_corner[axis][j] * minus_before
                                  - g_size[axis][j] * (bins.size[axis][j] - min_size);
                    g_corner[axis][j] *= shared;
                    g_size[axis][j] *= shared;
                }
                for (int i = 0; i < k; i++, grad += n)
                    EACH {
                        REAL g = i < bins.number[j] ? g_corner[axis][j] : 0;
                        g = i == bins.number[j] ? g_size[axis][j] : g;
                        REAL share = bins.exp_logits[axis * k + i][j] * bins.normalizer[axis][j];
                        grad[j] = (g + minus_mean[j]) * share;
                    }
            }
            for (int i = 1; i < k; i++, grad += n)
                EACH {
                    REAL g = i == bins.number[j] + 1 ? g_raw[1][j] : 0;
                    grad[j] = i == bins.number[j] ? g_raw[0][j] : g;
                }
            x += width, grad_z += width, grad_log_det += width, grad_x += width;
        }
        params += size->n_params * n, grad_params += size->n_params * n;
    }
}
