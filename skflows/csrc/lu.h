/* The matrix of _linear.py: L, of a unit diagonal, times U, of a signed exponential on its own. */

/* (n_members, d, member strides of the four inputs):
   lower, upper, raw_log_diagonal, sign -> matrix, log_diagonal */
CLONES static void NAME(lu)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    const REAL bound = settings[0];
    const ptrdiff_t d = sizes[1];
    REAL *matrix = tensors[4], *log_diagonal = tensors[5];
    for (ptrdiff_t member = 0; member < sizes[0]; member++, matrix += d * d, log_diagonal += d) {
        const REAL *lower = (const REAL *)tensors[0] + member * sizes[2];
        const REAL *upper = (const REAL *)tensors[1] + member * sizes[3];
        const REAL *raw = (const REAL *)tensors[2] + member * sizes[4];
        const REAL *sign = (const REAL *)tensors[3] + member * sizes[5];
        for (ptrdiff_t i = 0; i < d; i++) { /* U */
            REAL unused;
            log_diagonal[i] = NAME(squashed)(raw[i], bound, &unused);
            for (ptrdiff_t j = 0; j < d; j++)
                matrix[i * d + j] = j > i ? upper[i * d + j] : 0;
            matrix[i * d + i] = sign[i * d + i] * NAME(exponential)(log_diagonal[i]);
        }
        for (ptrdiff_t i = d - 1; i > 0; i--) /* the last row first: those before it are U's still */
            for (ptrdiff_t k = 0; k < i; k++) {
                const REAL of_row = lower[i * d + k];
                REAL *restrict row = matrix + i * d;
                const REAL *restrict seen = matrix + k * d;
                for (ptrdiff_t j = k; j < d; j++)
                    row[j] += of_row * seen[j];
            }
    }
}

/* (n_members, d, the same strides):
   lower, upper, raw_log_diagonal, sign, grad_matrix, grad_log_det -> grad_lower, grad_upper,
   grad_raw. A member has one gradient of its log-determinant. */
CLONES static void NAME(lu_backward)(const double *settings, const ptrdiff_t *sizes,
                                     void *const *tensors)
{
    const REAL bound = settings[0], *grad_matrix = tensors[4], *grad_log_det = tensors[5];
    const ptrdiff_t d = sizes[1];
    REAL *grad_lower = tensors[6], *grad_upper = tensors[7], *grad_raw = tensors[8];
    for (ptrdiff_t member = 0; member < sizes[0]; member++) {
        const REAL *lower = (const REAL *)tensors[0] + member * sizes[2];
        const REAL *upper = (const REAL *)tensors[1] + member * sizes[3];
        const REAL *raw = (const REAL *)tensors[2] + member * sizes[4];
        const REAL *sign = (const REAL *)tensors[3] + member * sizes[5];
        for (ptrdiff_t k = 0; k < d; k++) {
            REAL shrink, log_diagonal = NAME(squashed)(raw[k], bound, &shrink);
            const REAL diagonal = sign[k * d + k] * NAME(exponential)(log_diagonal);
            REAL *restrict of_upper = grad_upper + k * d;
            for (ptrdiff_t j = 0; j < d; j++)
                of_upper[j] = j < k ? 0 : grad_matrix[k * d + j];
            for (ptrdiff_t i = 0; i <= k; i++)
                grad_lower[i * d + k] = 0;
            for (ptrdiff_t i = k + 1; i < d; i++) {
                const REAL *restrict g = grad_matrix + i * d, of_column = lower[i * d + k];
                REAL sum = g[k] * diagonal;
                for (ptrdiff_t j = k + 1; j < d; j++)
                    sum += g[j] * upper[k * d + j];
                grad_lower[i * d + k] = sum;
                for (ptrdiff_t j = k; j < d; j++)
                    of_upper[j] += of_column * g[j];
            }
            const REAL of_log = of_upper[k] * diagonal + *grad_log_det;
            grad_raw[k] = of_log * (shrink * shrink * shrink);
            of_upper[k] = 0;
        }
        grad_matrix += d * d, grad_log_det++;
        grad_lower += d * d, grad_upper += d * d, grad_raw += d;
    }
}
