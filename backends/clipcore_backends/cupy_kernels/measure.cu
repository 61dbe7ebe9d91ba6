// measure, measure_precisely, finish: sums of |x|**order; order 0 stands for the maximum.
//
// Components of 32 bits or less are squared in double, where squares are exact, and a thread
// chains at most CHUNK / BLOCK + 1 = 65 elements; what threads and chunks add up to is kept as
// hi + lo (Knuth's sum). With the roundings of an element's own square or modulus the relative
// error is below 68 * 2^-53 < 2^-46.
//
// Where a leaf of the tree is of 64 bits (measure_precisely) every product keeps its rest, by fma, and so
// does every sum. The rests are at most 2^-53 of what they are rests of; only their own sum is
// rounded, so up to 2^40 elements the relative error is below 2^-80. Elements beyond 2^480 or
// below 2^-400 are first multiplied by 2^-600 or 2^600, as the largest so far asks; the sum
// remembers that as its level. What a lower level loses is below 2^-160 of the higher one.
//
// Who adds what to what is fixed by the table, and so are the bits.

constexpr int STEP = 600;
constexpr double DOWN = 0x1p-600, UP = 0x1p600, LARGE = 0x1p480, SMALL = 0x1p-400;

struct Sum {
    double hi, lo;
    Int level;
};

__device__ inline void two_sum(double a, double b, double& total, double& rest)
{
    double sum = a + b, other = sum - a;
    rest = (a - (sum - other)) + (b - other);
    total = sum;
}

__device__ inline void lift(Sum& sum, Int level, int order)
{
    for (Int k = (level - sum.level) * (order == 2 ? 2 : 1); k > 0; k--) {
        sum.hi *= DOWN;
        sum.lo *= DOWN;
    }
    if (level > sum.level) sum.level = level;
}

__device__ inline bool above(double hi, double lo, const Sum& sum)
{
    // NaN is above all.
    return sum.hi == sum.hi && (hi != hi || hi > sum.hi || (hi == sum.hi && lo > sum.lo));
}

__device__ inline void add(Sum& sum, double hi, double lo, int order)
{
    if (order) {
        double rest;
        two_sum(sum.hi, hi, sum.hi, rest);
        sum.lo += rest + lo;
    } else if (above(hi, lo, sum)) {
        sum.hi = hi;
        sum.lo = lo;
    }
}

__device__ inline Sum merged(Sum a, Sum b, int order)
{
    lift(a, b.level, order);
    lift(b, a.level, order);
    add(a, b.hi, b.lo, order);
    return a;
}

template <int ORDER> __device__ inline void add_plainly(Sum& sum, double x)
{
    if (ORDER == 2) sum.hi = fma(x, x, sum.hi);
    else if (ORDER == 1) sum.hi += fabs(x);
    else if (above(fabs(x), 0, sum)) sum.hi = fabs(x);
}

template <int ORDER> __device__ inline void add_plainly(Sum& sum, Complex<double> x)
{
    if (ORDER == 2) sum.hi += fma(x.re, x.re, x.im * x.im);
    else add_plainly<ORDER>(sum, sqrt(x.re * x.re + x.im * x.im));
}

__device__ inline double ready(Sum& sum, double size, int order)
{
    lift(sum, size > LARGE ? 1 : size < SMALL ? -1 : 0, order);
    return sum.level > 0 ? DOWN : sum.level < 0 ? UP : 1;
}

template <int ORDER> __device__ inline void add_precisely(Sum& sum, double x)
{
    double size = fabs(x) * ready(sum, fabs(x), ORDER), square = size * size;
    if (ORDER == 2) add(sum, square, fma(size, size, -square), ORDER);
    else add(sum, size, 0, ORDER);
}

template <int ORDER> __device__ inline void add_precisely(Sum& sum, Complex<double> x)
{
    double a = fabs(x.re), b = fabs(x.im), scale = ready(sum, a > b ? a : b, ORDER);
    double re = a * scale, im = b * scale;
    a = re * re;
    b = im * im;
    double a_rest = fma(re, re, -a), b_rest = fma(im, im, -b);
    if (ORDER == 2) {
        add(sum, a, a_rest, ORDER);
        add(sum, b, b_rest, ORDER);
        return;
    }
    double square, rest, modulus;
    two_sum(a, b, square, rest);
    double root = sqrt(square);
    if (!(root > 0 && is_finite(root))) return add(sum, root, 0, ORDER);
    double left = fma(-root, root, square) + (rest + a_rest + b_rest);
    two_sum(root, left / (2 * root), modulus, rest);
    add(sum, modulus, rest, ORDER);
}

template <bool PRECISE> struct Measure {
    Piece piece;
    Team team;
    int order;
    Sum sum;

    template <int ORDER, class T> __device__ void add_element(T x)
    {
        if constexpr (PRECISE) add_precisely<ORDER>(sum, widen(x));
        else add_plainly<ORDER>(sum, widen(x));
    }

    template <int ORDER, class T> __device__ Int add_packets()
    {
        constexpr int AHEAD = PRECISE ? 4 : 8;
        Packets<T, 1> packets(piece);
        for (int i = team.rank; i < packets.count; i += AHEAD * team.size) {
            Packet<T> ahead[AHEAD];
            packets.read(i, team.size, ahead);
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                if (i + k * team.size >= packets.count) break;
#pragma unroll
                for (int n = 0; n < Packet<T>::SIZE; n++) add_element<ORDER>(ahead[k].elements[n]);
            }
        }
        return packets.rest;
    }

    template <int ORDER, class T> __device__ void run()
    {
        constexpr bool wide = Format<typename Component<T>::type>::precision == 53;
        Int start = piece.start;
        // Not where a leaf of 64 bits is merely in the same tree: that is rare, and takes long to compile.
        if constexpr (PRECISE == wide) start = add_packets<ORDER, T>();
        if (start == piece.stop) return;
        Walk<1> walk(piece);
        for (Int i = start + team.rank; i < piece.stop; i += team.size)
            add_element<ORDER>(walk(i).template element<T>(IN));
    }

    template <class T> __device__ void operator()(T)
    {
        if (order == 2) run<2, T>();
        else if (order == 1) run<1, T>();
        else run<0, T>();
    }
};

// Add up what the threads of each team hold; the first one of the team gets it.
__device__ inline Sum team_sum(Sum sum, const Team& team, int order)
{
    __shared__ Sum shared[BLOCK];
    shared[threadIdx.x] = sum;
    for (int half = team.size / 2; half > 0; half /= 2) {
        __syncthreads();
        Sum& mine = shared[threadIdx.x];
        if (team.rank < half) mine = merged(mine, shared[threadIdx.x + half], order);
    }
    return shared[threadIdx.x];
}

template <bool PRECISE>
__device__ void measure_chunk(const Int* table, Int count, Int chunks, Int size, Int order, Sum* parts)
{
    Team team = my_team(size);
    Measure<PRECISE> task = {Piece(), team, (int)order, {0, 0, PRECISE ? -1 : 0}};
    if (team.chunk < chunks) {
        task.piece = piece_of(table, count, team.chunk);
        visit_kind(task.piece.leaf->kind, task);
    }
    Sum sum = team_sum(task.sum, team, (int)order);
    if (team.chunk < chunks && team.rank == 0) parts[team.chunk] = sum;
}

extern "C" __global__ __launch_bounds__(BLOCK, 3) void measure(
    const Int* table, Int count, Int chunks, Int size, Int order, Sum* parts)
{
    measure_chunk<false>(table, count, chunks, size, order, parts);
}

extern "C" __global__ __launch_bounds__(BLOCK, 4) void measure_precisely(
    const Int* table, Int count, Int chunks, Int size, Int order, Sum* parts)
{
    measure_chunk<true>(table, count, chunks, size, order, parts);
}

// Each group is `each` chunks, one after the other.
extern "C" __global__ void finish(
    const Sum* parts, Int each, Int groups, Int size, Int order, double* hi, double* lo, Int* exponent,
    double* norm)
{
    constexpr int AHEAD = 8;
    Team team = my_team(size);
    Sum sum = {0, 0, -1};
    if (team.chunk < groups) {
        const Sum* own = parts + team.chunk * each;
        for (Int i = team.rank; i < each; i += AHEAD * team.size) {
            Sum next[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                Int index = i + k * team.size;
                next[k] = index < each ? own[index] : Sum{0, 0, -1};
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) sum = merged(sum, next[k], (int)order);
        }
    }
    sum = team_sum(sum, team, (int)order);
    if (team.chunk >= groups || team.rank != 0) return;
    double rest = 0;
    if (is_finite(sum.hi)) two_sum(sum.hi, sum.lo, sum.hi, rest);
    hi[team.chunk] = sum.hi;
    lo[team.chunk] = rest;
    exponent[team.chunk] = is_finite(sum.hi) ? sum.level * STEP * (order == 2 ? 2 : 1) : 0;
    norm[team.chunk] = norm_or_none({sum.hi, rest, exponent[team.chunk]}, (int)order);
}
