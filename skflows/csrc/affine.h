/* The bounded affine map of _univariate.py, and what bounds its log-scale (`squash` in _pullbacks.py). */

/* x / sqrt(1 + (x / bound)^2). Its derivative is the cube of what x is multiplied by. */
INLINE REAL NAME(squashed)(REAL x, REAL bound, REAL *shrink)
{
    REAL unit = x / bound, square = 1 + unit * unit;
    *shrink = square > LARGEST ? 0 : NAME(reciprocal_root)(square); /* as torch's of an infinity */
    return x * *shrink;
}

/* (n): x -> y */
CLONES static void NAME(squash)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    const REAL bound = settings[0], *x = tensors[0];
    REAL *restrict y = tensors[1];
    TILES(sizes[0])
        EACH {
            REAL unused;
            y[start + j] = NAME(squashed)(x[start + j], bound, &unused);
        }
}

/* (n): x, grad_y -> grad_x */
CLONES static void NAME(squash_backward)(const double *settings, const ptrdiff_t *sizes,
                                         void *const *tensors)
{
    const REAL bound = settings[0], *x = tensors[0], *grad_y = tensors[1];
    REAL *restrict grad_x = tensors[2];
    TILES(sizes[0])
        EACH {
            REAL shrink;
            NAME(squashed)(x[start + j], bound, &shrink);
            grad_x[start + j] = grad_y[start + j] * (shrink * shrink * shrink);
        }
}

/* (n_blocks, n, n_alike): x, params -> z, log_slope, or back. Blocks, and what is alike, as of a
   spline. */
INLINE void NAME(affine_map)(const double *settings, const ptrdiff_t *sizes, void *const *tensors,
                             int inverse)
{
    const REAL bound = settings[0], *from = tensors[0], *shift = tensors[1];
    REAL *restrict to = tensors[2];
    const ptrdiff_t n = sizes[1];
    for (ptrdiff_t block = 0; block < sizes[0]; block++, shift += n) {
        REAL *restrict log_slope = (REAL *)tensors[3] + block / sizes[2] * n;
        TILES(n) {
            const REAL *raw = shift + n;
            REAL slopes[TILE];
            EACH {
                REAL unused, log_scale = NAME(squashed)(raw[j], bound, &unused);
                slopes[j] = inverse ? -log_scale : log_scale;
                REAL slope = NAME(exponential)(slopes[j]);
                to[j] = inverse ? (from[j] - shift[j]) * slope : from[j] * slope + shift[j];
            }
            NAME(add_up)(block % sizes[2] > 0, width, slopes, log_slope);
            from += width, shift += width, to += width, log_slope += width;
        }
    }
}

CLONES static void NAME(affine)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    NAME(affine_map)(settings, sizes, tensors, 0);
}

CLONES static void NAME(affine_inverse)(const double *settings, const ptrdiff_t *sizes,
                                        void *const *tensors)
{
    NAME(affine_map)(settings, sizes, tensors, 1);
}

/* (n_blocks, n, n_alike): x, params, grad_z, grad_log_slope -> grad_x, grad_params */
CLONES static void NAME(affine_backward)(const double *settings, const ptrdiff_t *sizes,
                                         void *const *tensors)
{
    const REAL bound = settings[0], *x = tensors[0], *params = tensors[1], *grad_z = tensors[2];
    REAL *restrict grad_x = tensors[4], *restrict grad_params = tensors[5];
    const ptrdiff_t n = sizes[1];
    for (ptrdiff_t block = 0; block < sizes[0]; block++, params += n, grad_params += n) {
        const REAL *grad_log_slope = (const REAL *)tensors[3] + block / sizes[2] * n;
        TILES(n) {
            REAL g_x[TILE], g_raw[TILE];
            EACH {
                REAL shrink, log_slope = NAME(squashed)(params[n + j], bound, &shrink);
                g_x[j] = grad_z[j] * NAME(exponential)(log_slope);
                g_raw[j] = (g_x[j] * x[j] + grad_log_slope[j]) * (shrink * shrink * shrink);
            }
            EACH grad_x[j] = g_x[j];
            EACH grad_params[j] = grad_z[j];
            EACH grad_params[n + j] = g_raw[j];
            x += width, params += width, grad_z += width, grad_log_slope += width;
            grad_x += width, grad_params += width;
        }
    }
}
