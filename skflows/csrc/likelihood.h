/* What training minimises, of _objective.py, and where its gradients begin. */

/* (n_members, n_columns, n): z by columns, log_det, weight, counts -> loss, grad_z, grad_log_det. Counts
   are integers of 64 bits. The loss is the sum of weight times negative log-density, and gradients are
   those of the loss over the count. */
CLONES static void NAME(likelihood)(const double *settings, const ptrdiff_t *sizes,
                                    void *const *tensors)
{
    const ptrdiff_t n_columns = sizes[1], n = sizes[2];
    const REAL constant = n_columns * settings[0];
    for (ptrdiff_t member = 0; member < sizes[0]; member++) {
        const REAL *z = (const REAL *)tensors[0] + member * n_columns * n;
        const REAL *log_det = (const REAL *)tensors[1] + member * n;
        const REAL *weight = (const REAL *)tensors[2] + member * n;
        const REAL count = ((const int64_t *)tensors[3])[member];
        REAL *restrict grad_z = (REAL *)tensors[5] + member * n_columns * n;
        REAL *restrict grad_log_det = (REAL *)tensors[6] + member * n;
        double total = 0;
        TILES(n) {
            REAL share[TILE], loss[TILE] = {0};
            EACH share[j] = weight[start + j] / count;
            for (ptrdiff_t at = start; at < n_columns * n; at += n)
                EACH {
                    loss[j] += z[at + j] * z[at + j];
                    grad_z[at + j] = share[j] * z[at + j];
                }
            EACH loss[j] = weight[start + j] * ((loss[j] + constant) / 2 - log_det[start + j]);
            EACH grad_log_det[start + j] = -share[j];
            total += NAME(sum)(loss);
        }
        ((REAL *)tensors[4])[member] = total;
    }
}
