/* One step of AdamW with clipped gradients, and of the moving average of the weights.

   Settings: factor on the learning rate, largest norm of the gradient, beta1, beta2, eps, and what the
   moving average takes: `early`, the number of steps over which it forgets faster, and its least share.
   Arrays: weights, average, moment, square, gradient (n_members, n), then loss, learning rate, weight
   decay and number of steps (n_members,). A member whose loss or gradient is not finite stands still,
   in this step and in later ones; `alive` (n_members,) says which do not. */
CLONES static void NAME(adamw)(const double *settings, ptrdiff_t n_members, ptrdiff_t n,
                               void *const *arrays, unsigned char *alive)
{
    const double factor = settings[0], max_norm = settings[1], beta1 = settings[2];
    const double beta2 = settings[3], early = settings[5], least_share = settings[6];
    const REAL eps = settings[4];
    for (ptrdiff_t member = 0; member < n_members; member++) {
        const REAL *gradient = (const REAL *)arrays[4] + member * n;
        const double loss = ((const REAL *)arrays[5])[member];
        const double rate = factor * ((const REAL *)arrays[6])[member];
        const double decay = ((const REAL *)arrays[7])[member];
        REAL *n_steps = (REAL *)arrays[8] + member;

        double total = 0;
        BLOCKS(n) {
            REAL squares[BLOCK] = {0};
            EACH squares[j] = gradient[start + j] * gradient[start + j];
            total += NAME(block_sum)(squares);
        }
        const double norm = sqrt(total);
        alive[member] &= fabs(loss) + norm < INFINITY;
        if (!alive[member])
            continue;

        const double step = *n_steps += 1, share = early / (early + 1 + step);
        const REAL clip = norm > max_norm ? max_norm / norm : 1, kept = 1 - rate * decay;
        const REAL rate_of_moment = rate / (1 - pow(beta1, step));
        const REAL per_root = 1 / sqrt(1 - pow(beta2, step));
        const REAL new_moment = 1 - beta1, old_square = beta2, new_square = 1 - beta2;
        const REAL new_average = share < least_share ? least_share : share;
        REAL *weights = (REAL *)arrays[0] + member * n, *average = (REAL *)arrays[1] + member * n;
        REAL *moment = (REAL *)arrays[2] + member * n, *square = (REAL *)arrays[3] + member * n;
        BLOCKS(n) {
            REAL g[BLOCK], w[BLOCK], a[BLOCK], m[BLOCK], s[BLOCK];
            EACH g[j] = gradient[start + j] * clip;
            EACH {
                m[j] = moment[start + j] + new_moment * (g[j] - moment[start + j]);
                s[j] = old_square * square[start + j] + new_square * g[j] * g[j];
                w[j] = kept * weights[start + j];
                w[j] -= rate_of_moment * m[j] / (SQUARE_ROOT(s[j]) * per_root + eps);
                a[j] = average[start + j] + new_average * (w[j] - average[start + j]);
            }
            EACH weights[start + j] = w[j];
            EACH average[start + j] = a[j];
            EACH moment[start + j] = m[j];
            EACH square[start + j] = s[j];
        }
    }
}
