/* The affine map z = x exp(s) + t with the bounded log-scale s = r / sqrt(1 + (r / bound)^2).

   Settings: bound. Parameters of a feature: t, then r. Formulas are those of bijections/_univariate.py. */

/* Return the bounded log-scale. The cube of `shrink` is its derivative. */
INLINE REAL NAME(bounded)(REAL raw, REAL bound, REAL *shrink)
{
    REAL unit = raw / bound, square = 1 + unit * unit;
    *shrink = square > LARGEST ? 0 : NAME(reciprocal_root)(square); /* as rsqrt(inf) in torch */
    return raw * *shrink;
}

INLINE void NAME(affine_map)(const double *settings, const Size *size, void *const *arrays, int inverse)
{
    const REAL bound = settings[0], *from = arrays[0], *shift = arrays[1];
    REAL *restrict to = arrays[2];
    const ptrdiff_t n = size->n;
    for (ptrdiff_t feature = 0; feature < size->n_all_features; feature++, shift += n) {
        REAL *restrict log_det = (REAL *)arrays[3] + feature / size->n_features * n;
        BLOCKS(n) {
            const REAL *raw = shift + n;
            REAL log_slope[BLOCK];
            EACH {
                REAL unused, log_scale = NAME(bounded)(raw[j], bound, &unused);
                log_slope[j] = inverse ? -log_scale : log_scale;
                REAL slope = NAME(exponential)(log_slope[j]);
                to[j] = inverse ? (from[j] - shift[j]) * slope : from[j] * slope + shift[j];
            }
            NAME(accumulate)(feature % size->n_features > 0, width, log_slope, log_det);
            from += width, shift += width, to += width, log_det += width;
        }
    }
}

/* x, params -> z, log_det */
CLONES static void NAME(affine_forward)(const double *settings, const Size *size, void *const *arrays)
{
    NAME(affine_map)(settings, size, arrays, 0);
}

/* z, params -> x, log_det */
CLONES static void NAME(affine_inverse)(const double *settings, const Size *size, void *const *arrays)
{
    NAME(affine_map)(settings, size, arrays, 1);
}

/* x, params, grad_z, grad_log_det -> grad_x, grad_params */
CLONES static void NAME(affine_backward)(const double *settings, const Size *size, void *const *arrays)
{
    const REAL bound = settings[0], *x = arrays[0], *params = arrays[1], *grad_z = arrays[2];
    REAL *restrict grad_x = arrays[4], *restrict grad_params = arrays[5];
    const ptrdiff_t n = size->n;
    for (ptrdiff_t feature = 0; feature < size->n_all_features; feature++) {
        const REAL *grad_log_det = (const REAL *)arrays[3] + feature / size->n_features * n;
        BLOCKS(n) {
            REAL g_x[BLOCK], g_raw[BLOCK];
            EACH {
                REAL shrink, log_scale = NAME(bounded)(params[n + j], bound, &shrink);
                g_x[j] = grad_z[j] * NAME(exponential)(log_scale);
                g_raw[j] = (g_x[j] * x[j] + grad_log_det[j]) * (shrink * shrink * shrink);
            }
            EACH grad_x[j] = g_x[j];
            EACH grad_params[j] = grad_z[j];
            EACH grad_params[n + j] = g_raw[j];
            x += width, params += width, grad_z += width, grad_log_det += width;
            grad_x += width, grad_params += width;
        }
        params += n, grad_params += n;
    }
}
