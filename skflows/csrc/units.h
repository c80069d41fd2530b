/* The hidden layers of _nn.py, between one product and the next. */

/* (n_members, n_units, n, member strides of bias, of bits, and of what tells of them, row strides of
   product, of residual, and of units): product, bias, residual or NULL, bits or NULL, least, factor ->
   product + bias + residual in place, units. Those whose bits are less than the least are dropped,
   others multiplied by the factor. The units may take the place of the product. */
CLONES static void NAME(units)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    const ptrdiff_t n_members = sizes[0], n_units = sizes[1], n = sizes[2];
    for (ptrdiff_t member = 0; member < n_members; member++) {
        const REAL *bias = (const REAL *)tensors[1] + member * sizes[3];
        const int8_t *bits = tensors[3] ? (const int8_t *)tensors[3] + member * sizes[4] : NULL;
        const int8_t least = bits ? ((const int8_t *)tensors[4])[member * sizes[5]] : 0;
        const REAL factor = bits ? ((const REAL *)tensors[5])[member * sizes[5]] : 1;
        for (ptrdiff_t unit = 0; unit < n_units; unit++) {
            const ptrdiff_t row = member * n_units + unit;
            REAL *h = (REAL *)tensors[0] + row * sizes[6];
            const REAL *residual = tensors[2] ? (const REAL *)tensors[2] + row * sizes[7] : NULL;
            REAL *units = (REAL *)tensors[6] + row * sizes[8];
            TILES(n) {
                REAL sum[TILE], on[TILE];
                EACH sum[j] = h[start + j] + bias[unit];
                if (residual)
                    EACH sum[j] += residual[start + j];
                EACH on[j] = sum[j];
                if (bits) {
                    EACH on[j] *= bits[j] < least ? 0 : factor;
                    bits += width;
                }
                EACH h[start + j] = sum[j];
                EACH units[start + j] = on[j] < 0 ? 0 : on[j]; /* nan stays */
            }
        }
    }
}

/* (n_members, n_units, n, member stride of factor, row stride of units):
   grad_units, units, factor or NULL, grad_after or NULL -> grad_h in place of the first, grad_bias.
   A unit that was dropped is 0, as one is that is off: neither passes anything back. */
CLONES static void NAME(units_backward)(const double *settings, const ptrdiff_t *sizes,
                                        void *const *tensors)
{
    const ptrdiff_t n_members = sizes[0], n_units = sizes[1], n = sizes[2];
    REAL *grad = tensors[0], *grad_bias = tensors[4];
    const REAL *row = tensors[1], *after = tensors[3];
    for (ptrdiff_t member = 0; member < n_members; member++) {
        const REAL factor = tensors[2] ? ((const REAL *)tensors[2])[member * sizes[3]] : 1;
        for (ptrdiff_t unit = 0; unit < n_units; unit++, row += sizes[4]) {
            REAL sums[TILE] = {0}; /* of every 64th */
            TILES(n) {
                const REAL *units = row + start;
                REAL g[TILE];
                EACH g[j] = units[j] <= 0 ? 0 : grad[j] * factor;
                if (after) {
                    EACH g[j] += after[j];
                    after += width;
                }
                EACH sums[j] += g[j];
                EACH grad[j] = g[j];
                grad += width;
            }
            *grad_bias++ = NAME(sum)(sums);
        }
    }
}
