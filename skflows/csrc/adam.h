/* The step of _optimizer.py: AdamW on clipped gradients, and the moving average of the weights. */

/* (n_members, n, n_parts): weights, average, moment, square, addresses of the parts of the gradient,
   where each part begins in a row of weights, mask or NULL, loss, learning_rate, weight_decay,
   n_steps, alive. The first four change, as do the last two. Steps are floats, alive are bytes, and
   addresses and beginnings are integers of 64 bits: of the latter there is one more, the end. */
CLONES static void NAME(adam)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    const double factor = settings[0], most = settings[1], beta1 = settings[2], beta2 = settings[3];
    const double early = settings[5], least_share = settings[6];
    const REAL eps = settings[4];
    const int64_t *addresses = tensors[4], *begins = tensors[5];
    const REAL *mask = tensors[6];
    for (ptrdiff_t member = 0; member < sizes[0]; member++) {
        const double loss = ((const REAL *)tensors[7])[member];
        const double rate = factor * ((const REAL *)tensors[8])[member];
        const double decay = ((const REAL *)tensors[9])[member];
        float *n_steps = (float *)tensors[10] + member;
        unsigned char *alive = (unsigned char *)tensors[11] + member;

        double total = 0;
        for (ptrdiff_t part = 0; part < sizes[2]; part++) {
            const ptrdiff_t n = begins[part + 1] - begins[part];
            const REAL *gradient = (const REAL *)(intptr_t)addresses[part] + member * n;
            TILES(n) {
                REAL g[TILE] = {0};
                EACH g[j] = gradient[start + j];
                if (mask)
                    EACH g[j] *= mask[begins[part] + start + j];
                EACH g[j] *= g[j];
                total += NAME(sum)(g);
            }
        }
        const double norm = sqrt(total);
        *alive &= fabs(loss) + norm < INFINITY;
        if (!*alive)
            continue;

        const double step = *n_steps += 1, share = early / (early + 1 + step);
        const REAL clip = norm > most ? most / norm : 1, kept = 1 - rate * decay;
        const REAL pace = rate / (1 - pow(beta1, step)), per_root = 1 / sqrt(1 - pow(beta2, step));
        const REAL new_moment = 1 - beta1, old_square = beta2, new_square = 1 - beta2;
        const REAL new_average = share < least_share ? least_share : share;
        for (ptrdiff_t part = 0; part < sizes[2]; part++) {
            const ptrdiff_t n = begins[part + 1] - begins[part];
            const ptrdiff_t first = member * sizes[1] + begins[part];
            const REAL *gradient = (const REAL *)(intptr_t)addresses[part] + member * n;
            REAL *weights = (REAL *)tensors[0] + first, *average = (REAL *)tensors[1] + first;
            REAL *moment = (REAL *)tensors[2] + first, *square = (REAL *)tensors[3] + first;
            TILES(n) {
                REAL g[TILE], w[TILE], a[TILE], m[TILE], s[TILE];
                EACH g[j] = gradient[start + j] * clip;
                if (mask)
                    EACH g[j] *= mask[begins[part] + start + j];
                EACH {
                    m[j] = moment[start + j] + new_moment * (g[j] - moment[start + j]);
                    s[j] = old_square * square[start + j] + new_square * g[j] * g[j];
                    w[j] = kept * weights[start + j];
                    w[j] -= pace * m[j] / (SQUARE_ROOT(s[j]) * per_root + eps);
                    a[j] = average[start + j] + new_average * (w[j] - average[start + j]);
                }
                EACH weights[start + j] = w[j];
                EACH average[start + j] = a[j];
                EACH moment[start + j] = m[j];
                EACH square[start + j] = s[j];
            }
        }
    }
}
