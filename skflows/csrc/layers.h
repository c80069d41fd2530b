/* The layers of _nn.py: a product of a weight with columns, and what follows on it.

   Products are by tiles of rows of the weight, which leave out the columns in which a mask has zeros
   alone. Each tile is multiplied by the gemm of a library, whose address is given. */

/* Tiles are of as many columns as a pass takes at once. Gradients in a weight are added up over so
   many, in parts of so many rows: OpenBLAS takes small matrices as they lie in memory, and shares
   none that has no more multiplications among threads. */
#define MOST_MULTIPLICATIONS (1 << 18)
#define MOST_COLUMNS 512
#define MOST_ROWS 16
#define SIZES_OF_A_TILE 5

typedef void NAME(Gemm)(const char *, const char *, const int *, const int *, const int *,
                        const REAL *, const REAL *, const int *, const REAL *, const int *,
                        const REAL *, REAL *, const int *);

/* a (n_rows, n_between) b (n_between, n_columns) + kept c -> c. What is transposed lies in memory
   the other way around. Fortran has columns where C has rows. */
INLINE void NAME(multiply)(NAME(Gemm) *gemm, int n_rows, int n_columns, int n_between,
                           const REAL *a, int a_row, int a_transposed, const REAL *b, int b_row,
                           int b_transposed, REAL kept, REAL *c, int c_row)
{
    const REAL one = 1;
    gemm(b_transposed ? "T" : "N", a_transposed ? "T" : "N", &n_columns, &n_rows, &n_between, &one,
         b, &b_row, a, &a_row, &kept, c, &c_row);
}

/* Columns of the product of a weight, or of its transpose. Tiles are (first row, end, first and end
   of what these see, whether another tile has begun them). */
INLINE void NAME(tiles)(NAME(Gemm) *gemm, const int64_t *tile, ptrdiff_t n_tiles, int transposed,
                        const REAL *weight, ptrdiff_t weight_row, const REAL *h, ptrdiff_t h_row,
                        ptrdiff_t width, REAL *product, ptrdiff_t product_row)
{
    for (ptrdiff_t i = 0; i < n_tiles; i++, tile += SIZES_OF_A_TILE) {
        const ptrdiff_t first = tile[0], end = tile[1], seen = tile[2];
        if (tile[3] > seen)
            NAME(multiply)(gemm, end - first, width, tile[3] - seen,
                           weight + (transposed ? seen * weight_row + first
                                                : first * weight_row + seen),
                           weight_row, transposed, h + seen * h_row, h_row, 0, tile[4] != 0,
                           product + first * product_row, product_row);
        else
            for (ptrdiff_t row = first; row < end; row++)
                memset(product + row * product_row, 0, width * sizeof(REAL));
    }
}

/* Of a tile of columns of a unit: product + bias + residual -> h, units. The caller's constants say
   which of them there are: they make a loop of each kind. The units may take the place of h. */
INLINE void NAME(activate)(ptrdiff_t width, REAL *h, REAL bias, const REAL *residual,
                           const int8_t *bits, int8_t least, REAL factor, REAL *units,
                           int has_residual, int has_bits, int has_units)
{
    EACH {
        REAL sum = h[j] + bias;
        if (has_residual)
            sum += residual[j];
        h[j] = sum;
        if (has_bits)
            sum *= bits[j] < least ? 0 : factor;
        if (has_units)
            units[j] = sum < 0 ? 0 : sum; /* nan stays */
    }
}

/* (gemm, n_members, n_tiles, n_units, n_in, n, member strides of weight, of bias, of what is seen, of
   bits, and of what tells of them, row strides of what is seen, and of product, residual and units):
   weight, bias, seen, tiles, residual or NULL, bits or NULL, least, factor -> product + bias +
   residual, units. Those whose bits are less than the least are dropped, others multiplied by the
   factor. The units may take the place of the product, which is given if there is no gemm. A layer
   without activation has NULL for units, residual and bits. */
CLONES static void NAME(layer)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    NAME(Gemm) *gemm = (NAME(Gemm) *)sizes[0];
    const ptrdiff_t n_units = sizes[3], n_in = sizes[4], n = sizes[5];
    const ptrdiff_t seen_row = sizes[11], h_row = sizes[12];
    for (ptrdiff_t member = 0; member < sizes[1]; member++) {
        const REAL *weight = (const REAL *)tensors[0] + member * sizes[6];
        const REAL *bias = (const REAL *)tensors[1] + member * sizes[7];
        const REAL *seen = (const REAL *)tensors[2] + member * sizes[8];
        const int8_t *all_bits = tensors[5] ? (const int8_t *)tensors[5] + member * sizes[9] : NULL;
        const int8_t least = all_bits ? ((const int8_t *)tensors[6])[member * sizes[10]] : 0;
        const REAL factor = all_bits ? ((const REAL *)tensors[7])[member * sizes[10]] : 1;
        TILES(n) {
            ptrdiff_t row = member * n_units * h_row + start;
            if (gemm)
                NAME(tiles)(gemm, tensors[3], sizes[2], 0, weight, n_in, seen + start, seen_row,
                            width, (REAL *)tensors[8] + row, h_row);
            for (ptrdiff_t unit = 0; unit < n_units; unit++, row += h_row) {
                REAL *h = (REAL *)tensors[8] + row;
                REAL *units = tensors[9] ? (REAL *)tensors[9] + row : NULL;
                const REAL *residual = tensors[4] ? (const REAL *)tensors[4] + row : NULL;
                const int8_t *bits = all_bits ? all_bits + unit * n + start : NULL;
                const REAL own = bias[unit];
                if (!units)
                    NAME(activate)(width, h, own, residual, bits, least, factor, units, 0, 0, 0);
                else if (residual && bits)
                    NAME(activate)(width, h, own, residual, bits, least, factor, units, 1, 1, 1);
                else if (residual)
                    NAME(activate)(width, h, own, residual, bits, least, factor, units, 1, 0, 1);
                else if (bits)
                    NAME(activate)(width, h, own, residual, bits, least, factor, units, 0, 1, 1);
                else
                    NAME(activate)(width, h, own, residual, bits, least, factor, units, 0, 0, 1);
            }
        }
    }
}

/* Gradients in a weight, in its tiles, from those in a product. */
INLINE void NAME(add_up_columns)(NAME(Gemm) *gemm, const int64_t *tile, ptrdiff_t n_tiles,
                                 const REAL *grad, ptrdiff_t grad_row, const REAL *seen,
                                 ptrdiff_t seen_row, ptrdiff_t n, REAL *grad_weight,
                                 ptrdiff_t weight_row)
{
    const ptrdiff_t n_parts = n / MOST_COLUMNS + (n % MOST_COLUMNS > 0);
    const ptrdiff_t most = n_parts ? (n + n_parts - 1) / n_parts : 0;
    ptrdiff_t n_rows = most ? MOST_MULTIPLICATIONS / (TILE * most) : MOST_ROWS;
    n_rows = n_rows < MOST_ROWS ? n_rows : MOST_ROWS;
    for (ptrdiff_t i = 0; i < n_tiles; i++, tile += SIZES_OF_A_TILE)
        for (ptrdiff_t row = tile[0]; row < tile[1]; row += n_rows)
            for (ptrdiff_t column = tile[2]; column < tile[3]; column += TILE) {
                const ptrdiff_t height = tile[1] - row < n_rows ? tile[1] - row : n_rows;
                const ptrdiff_t width = tile[3] - column < TILE ? tile[3] - column : TILE;
                for (ptrdiff_t start = 0; start < n; start += most)
                    NAME(multiply)(gemm, height, width, n - start < most ? n - start : most,
                                   grad + row * grad_row + start, grad_row, 0,
                                   seen + column * seen_row + start, seen_row, 1, start > 0,
                                   grad_weight + row * weight_row + column, weight_row);
            }
}

/* Of a tile of columns of a unit: the gradient in h, in place of that in the units, and its sums. */
INLINE void NAME(pass_back)(ptrdiff_t width, REAL *restrict grad, const REAL *restrict units,
                            REAL factor, const REAL *restrict after, REAL *restrict sums,
                            int has_after)
{
    EACH {
        REAL g = units[j] <= 0 ? 0 : grad[j] * factor;
        if (has_after)
            g += after[j];
        sums[j] += g;
        grad[j] = g;
    }
}

/* (gemm, n_members, numbers of tiles of the weight and of its transpose, n_units, n_in, n, member
   strides of weight, of what is seen, and of factor, row strides of what is seen, and of units):
   grad_units, units or NULL, factor or NULL, grad_after or NULL, weight, seen, tiles of both ->
   grad_h in place of the first, grad_seen or NULL, grad_weight, grad_bias. A unit that was dropped is
   0, as one is that is off: neither passes anything back. Without gemm only the first and the last of
   these. Gradients lie as what they are gradients in, but for those of weights, in one piece. */
CLONES static void NAME(layer_backward)(const double *settings, const ptrdiff_t *sizes,
                                        void *const *tensors)
{
    NAME(Gemm) *gemm = (NAME(Gemm) *)sizes[0];
    const ptrdiff_t n_units = sizes[4], n_in = sizes[5], n = sizes[6];
    const ptrdiff_t seen_row = sizes[10], h_row = sizes[11];
    REAL *grad_weight = tensors[9], *grad_bias = tensors[10];
    for (ptrdiff_t member = 0; member < sizes[1]; member++, grad_weight += n_units * n_in) {
        const REAL factor = tensors[2] ? ((const REAL *)tensors[2])[member * sizes[9]] : 1;
        REAL *grad = (REAL *)tensors[0] + member * n_units * h_row;
        for (ptrdiff_t row = member * n_units; row < (member + 1) * n_units; row++) {
            REAL sums[TILE] = {0}; /* of every 64th */
            TILES(n) {
                const ptrdiff_t place = row * h_row + start;
                REAL *grad_h = (REAL *)tensors[0] + place;
                const REAL *units = tensors[1] ? (const REAL *)tensors[1] + place : NULL;
                const REAL *after = tensors[3] ? (const REAL *)tensors[3] + place : NULL;
                if (!units)
                    EACH sums[j] += grad_h[j];
                else if (after)
                    NAME(pass_back)(width, grad_h, units, factor, after, sums, 1);
                else
                    NAME(pass_back)(width, grad_h, units, factor, after, sums, 0);
            }
            *grad_bias++ = NAME(sum)(sums);
        }
        if (!gemm)
            continue;
        const REAL *seen = (const REAL *)tensors[5] + member * sizes[8];
        if (n_in > 0)
            memset(grad_weight, 0, n_units * n_in * sizeof(REAL));
        NAME(add_up_columns)(gemm, tensors[6], sizes[2], grad, h_row, seen, seen_row, n, grad_weight,
                             n_in);
        if (tensors[8])
            TILES(n)
                NAME(tiles)(gemm, tensors[7], sizes[3], 1,
                            (const REAL *)tensors[4] + member * sizes[7], n_in, grad + start, h_row,
                            width, (REAL *)tensors[8] + member * sizes[8] + start, seen_row);
    }
}

#undef MOST_MULTIPLICATIONS
#undef MOST_COLUMNS
#undef MOST_ROWS
#undef SIZES_OF_A_TILE
