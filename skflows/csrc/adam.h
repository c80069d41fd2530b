/* The step of _optimizer.py: AdamW on clipped gradients, and the moving average of the weights. */

/* (n_members, n): weights, average, moment, square, gradient, mask or NULL, loss, learning_rate,
   weight_decay, n_steps, alive. The first four change, as do the last two, and the gradient where
   there is a mask. Steps are floats, and alive are bytes. */
CLONES static void NAME(adam)(const double *settings, const ptrdiff_t *sizes, void *const *tensors)
{
    const double factor = settings[0], most = settings[1], beta1 = settings[2], beta2 = settings[3];
    const double early = settings[5], least_share = settings[6];
    const REAL eps = settings[4];
    const ptrdiff_t n = sizes[1];
    for (ptrdiff_t member = 0; member < sizes[0]; member++) {
        REAL *weights = (REAL *)tensors[0] + member * n, *average = (REAL *)tensors[1] + member * n;
        REAL *moment = (REAL *)tensors[2] + member * n, *square = (REAL *)tensors[3] + member * n;
        REAL *gradient = (REAL *)tensors[4] + member * n;
        const REAL *mask = tensors[5];
        const double loss = ((const REAL *)tensors[6])[member];
        const double rate = factor * ((const REAL *)tensors[7])[member];
        const double decay = ((const REAL *)tensors[8])[member];
        float *n_steps = (float *)tensors[9] + member;
        unsigned char *alive = (unsigned char *)tensors[10] + member;

        double total = 0;
        TILES(n) {
            REAL g[TILE] = {0};
            EACH g[j] = mask ? gradient[start + j] * mask[start + j] : gradient[start + j];
            if (mask)
                EACH gradient[start + j] = g[j];
            EACH g[j] *= g[j];
            total += NAME(sum)(g);
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
        TILES(n) {
            REAL w[TILE], a[TILE], m[TILE], s[TILE];
            EACH {
                REAL g = gradient[start + j] * clip;
                m[j] = moment[start + j] + new_moment * (g - moment[start + j]);
                s[j] = old_square * square[start + j] + new_square * g * g;
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
