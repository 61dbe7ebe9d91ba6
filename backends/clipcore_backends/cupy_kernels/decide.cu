// decide: the arithmetic of clipcore/_decide.py, bit for bit; a thread's for each group and format.

struct Norm {
    double hi, lo;
    Int exponent;
};
enum Action { KEEP, SCALE, ZERO, SPOIL };
struct Multiplier {
    double value;
    Int exponent;
    bool divide, ample;
};
struct Decision {
    Multiplier number;
    Int action;
};

__device__ inline Norm norm_of(Norm sum, int order)
{
    int shift;
    double hi = frexp(sum.hi, &shift), lo = ldexp(sum.lo, -shift);
    Int exponent = shift + sum.exponent;
    if (order != 2) return {hi, lo, exponent};
    int odd = (int)(exponent & 1);
    hi = ldexp(hi, odd);
    lo = ldexp(lo, odd);
    double root = sqrt(hi), square = root * root, rest = fma(root, root, -square);
    return {root, ((hi - square) - rest + lo) / (root > 0 ? 2 * root : 1), (exponent - odd) / 2};
}

__device__ inline double to_float(Norm norm) { return ldexp(norm.hi + norm.lo, (int)norm.exponent); }

__device__ inline double decide(Norm norm, double limit, Norm& factor)
{
    int shift;
    double c = frexp(limit, &shift), divisor = norm.hi > 0 ? norm.hi : 1, quotient = c / divisor;
    double rounded = quotient * divisor, rest = fma(quotient, divisor, -rounded);
    double correction = ((c - rounded) - rest - quotient * norm.lo) / divisor;
    Int exponent = shift - norm.exponent;
    int near = exponent < -9 ? -9 : exponent > 9 ? 9 : (int)exponent;
    factor = {quotient, correction, exponent};
    return norm.hi > 0 ? (ldexp(quotient, near) - 1) + ldexp(correction, near) : 1;
}

__device__ inline double round_bits(double mantissa, double lo, int bits, bool up)
{
    double scaled = ldexp(mantissa, bits), steps = up ? ceil(scaled) : floor(scaled);
    if (steps == scaled && up && lo > 0) steps += 1;
    if (steps == scaled && !up && lo < 0) steps -= 1;
    return ldexp(steps, -bits);
}

__device__ inline Multiplier multiplier(
    Norm factor, double error, double limit, double slack, int precision, int smallest)
{
    double margin = ldexp(1 + 0x1p-6, -precision) + error, lowered = factor.lo - factor.hi * margin;
    double hi = factor.hi + lowered, lo = (factor.hi - hi) + lowered;
    int shift, bits = precision >= 24 ? precision : 24 - precision;
    double mantissa = frexp(hi, &shift);
    lo = ldexp(lo, -shift);
    Int exponent = factor.exponent + shift;
    bool reached = exponent > (precision == 53 ? -1000 : -100);
    bool ample = (reached && limit >= ldexp(slack, smallest)) || limit == 0;
    if (!(mantissa < 0x1.6a09e667f3bcdp-1 && mantissa > 0 && bits == precision))
        return {round_bits(mantissa, lo, bits, false), exponent, false, ample};
    double inverse = 1 / mantissa, rounded = inverse * mantissa, rest = fma(inverse, mantissa, -rounded);
    double correction = ((1 - rounded) - rest - inverse * lo) / mantissa, exact = inverse + correction;
    correction = (inverse - exact) + correction;
    return {2 * round_bits(0.5 * exact, 0.5 * correction, bits, true), -exponent, true, ample};
}

// The norm of a finite group in float64; NaN or infinity where an element is.
__device__ inline double norm_or_none(Norm sum, int order)
{
    return is_finite(sum.hi) ? to_float(norm_of(sum, order)) : sum.hi;
}

extern "C" __global__ void norms(
    const double* hi, const double* lo, const Int* exponent, Int groups, Int order, double* norm)
{
    Int g = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (g < groups) norm[g] = norm_or_none({hi[g], lo[g], exponent[g]}, (int)order);
}

// What becomes of each group's elements of each of the tree's formats, `count` of them from `first` on.
// A limit that is an array is read here, on the device; negative or NaN, it spoils the group.
extern "C" __global__ void decide_all(
    const double* hi, const double* lo, const Int* exponent, Int groups, Int order, const double* limits,
    double limit, Int zero, double error, double slack, Int first, Int count, Decision* out)
{
    Int task = (Int)blockIdx.x * BLOCK + threadIdx.x, g = count == 1 ? task : task / count;
    if (g >= groups) return;
    Decision result = {{0, 0, false, false}, KEEP};
    double size = fabs(limits ? *limits : limit);
    if (!is_finite(hi[g])) result.action = zero ? ZERO : size <= LARGEST ? SPOIL : KEEP;
    else if (is_finite(size)) {
        Norm factor, norm = norm_of({hi[g], lo[g], exponent[g]}, (int)order);
        if (decide(norm, size, factor) < 0) {
            Facts facts = facts_of(first + task - g * count);
            result = {multiplier(factor, error, size, slack, facts.precision, facts.smallest), SCALE};
        }
    }
    if (limits && !(*limits >= 0)) result.action = SPOIL;
    out[task] = result;
}
