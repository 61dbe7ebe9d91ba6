// What ranks exchange, word for word as in clipcore/_reduce.py; the work of one thread of the block.

const int PIECES = 5, BITS = 22;

__device__ inline double root_of_norm(Norm sum, int order)
{
    Norm norm = norm_of(sum, order);
    int odd = (int)(norm.exponent & 1);
    return ldexp(sqrt(ldexp(norm.hi, odd)), (int)((norm.exponent - odd) / 2));
}

extern "C" __global__ void share_size(
    const double* hi, const double* lo, const Int* exponent, Int order, double* out)
{
    if (threadIdx.x) return;
    Norm sum = is_finite(*hi) ? Norm{*hi, *lo, *exponent} : Norm{0, 0, 0};
    out[0] = root_of_norm(sum, (int)order);
    out[1] = *hi == *hi && !is_finite(*hi);
    out[2] = *hi != *hi;
}

__device__ inline Int unit_of(double size, Int order)
{
    int exponent;
    frexp(size, &exponent);
    return 2 * (order == 2 ? 2 : 1) * exponent;
}

extern "C" __global__ void share_sum(
    const double* hi, const double* lo, const Int* exponent, const double* sizes, Int order, double* out)
{
    if (threadIdx.x) return;
    int move = is_finite(*hi) ? (int)(*exponent - unit_of(sizes[0], order)) : 0;
    double high = is_finite(*hi) ? ldexp(*hi, move) : 0, low = is_finite(*hi) ? ldexp(*lo, move) : 0;
    if (!order) {
        out[0] = high + low;
        return;
    }
    for (int k = 1; k <= PIECES; k++) {
        double steps = ldexp(1.0, BITS * k);
        out[k - 1] = floor(high * steps) / steps;
        two_sum(high - out[k - 1], low, high, low);
    }
}

__device__ inline void sum_of_pieces(const double* parts, double& hi, double& lo)
{
    double rest;
    hi = parts[0];
    lo = 0;
    for (int k = 1; k < PIECES; k++) {
        two_sum(hi, parts[k], hi, rest);
        lo += rest;
    }
    two_sum(hi, lo, hi, lo);
}

extern "C" __global__ void take_sum(
    const double* sizes, const double* parts, Int order, double* hi, double* lo, Int* exponent)
{
    if (threadIdx.x) return;
    *lo = 0;
    *exponent = unit_of(sizes[0], order);
    if (order) sum_of_pieces(parts, *hi, *lo);
    else *hi = parts[0];
    if (!(sizes[2] > 0 || sizes[1] > 0)) return;
    *hi = __longlong_as_double(sizes[2] > 0 ? 0x7ff8000000000000ll : 0x7ff0000000000000ll);
    *lo = 0;
    *exponent = 0;
}
