// Clip any number of arrays in four launches: measure, finish, decide, scale; and clamp in one.
//
// A table that comes from the host names the leaves: where their elements are, as addresses and
// strides, and how long their groups are. A group is cut into chunks, a chunk is the work of a
// team of threads, a block is one or more teams. So the number of launches is the same for one
// leaf and for ten thousand, for one group and for a million.
//
// The files of this folder are compiled as one, in the order arrays, measure, decide, scale,
// share. An fma stands only where it is written: the compiler must form none (--fmad=false).

typedef long long Int;

constexpr int BLOCK = 256;
constexpr Int CHUNK = 16384;
constexpr double LARGEST = 0x1.fffffffffffffp1023;

__device__ inline bool is_finite(double x) { return fabs(x) <= LARGEST; }

// What arrays are made of: numbers by their bits. CuPy has the compiler flush subnormal floats, so
// no float is ever computed with: all arithmetic is in double, which nothing flushes.

struct Half {
    unsigned short bits;
};
struct Bfloat {
    unsigned short bits;
};
struct Single {
    unsigned bits;
};
template <class R> struct Complex {
    R re, im;
};

template <class R> struct Format;
template <> struct Format<Half> {
    static constexpr int precision = 11, smallest = -24;
};
template <> struct Format<Bfloat> {
    static constexpr int precision = 8, smallest = -133;
};
template <> struct Format<Single> {
    static constexpr int precision = 24, smallest = -149;
};
template <> struct Format<double> {
    static constexpr int precision = 53, smallest = -1074;
};

// The bits of a smaller format, moved to where a double has its own, stand for the number over
// 2^OFFSET; for subnormal ones as well.
template <class R> struct Bits {
    static constexpr int SHIFT = 53 - Format<R>::precision, WIDTH = 8 * sizeof(R);
    static constexpr Int OFFSET = 1021 + Format<R>::smallest + Format<R>::precision;
    static constexpr Int SIGN = 1ll << (WIDTH - 1), INFINITE = SIGN - (1ll << (Format<R>::precision - 1));
};

template <class R> __device__ inline double widened(R x)
{
    typedef Bits<R> B;
    Int magnitude = x.bits & (B::SIGN - 1);
    Int moved = magnitude << B::SHIFT;
    double size = __longlong_as_double(moved) * __longlong_as_double((1023 + B::OFFSET) << 52);
    if (magnitude >= B::INFINITE) size = __longlong_as_double(moved | 0x7ffll << 52);
    return x.bits & B::SIGN ? -size : size;
}

template <class T> __device__ inline T widen(T x) { return x; }
__device__ inline double widen(Half x) { return widened(x); }
__device__ inline double widen(Bfloat x) { return widened(x); }
__device__ inline double widen(Single x) { return widened(x); }
template <class R> __device__ inline Complex<double> widen(Complex<R> x)
{
    return {widen(x.re), widen(x.im)};
}

// Round to nearest, ties to even: numbers that are not beyond the format's largest.
template <class R> __device__ inline void narrow(double x, R& result)
{
    typedef Bits<R> B;
    double size = fabs(x);
    Int bits = __double_as_longlong(size), anchor = (1023ll + 52 + Format<R>::smallest) << 52;
    if (bits < (B::OFFSET + 1) << 52) {
        // Below the normal range a sum with the anchor has the format's own grid.
        bits = __double_as_longlong(size + __longlong_as_double(anchor)) - anchor;
    } else {
        bits += (1ll << (B::SHIFT - 1)) - 1 + (bits >> B::SHIFT & 1);
        bits = (bits - (B::OFFSET << 52)) >> B::SHIFT;
    }
    result.bits = bits | (__double_as_longlong(x) < 0 ? B::SIGN : 0);
}

__device__ inline void narrow(double x, double& result) { result = x; }

// The table, all of 64-bit words: a Leaf for each array, then the Dims of all of them.

enum { IN, OUT, LOWER, UPPER, OPERANDS };

struct Leaf {
    Int first;  // chunk
    Int kind, length, dim, dims, pointers[OPERANDS];
};
struct Dim {
    Int size, strides[OPERANDS];
};

// The norms' kinds; those of integers follow, in clamp.
template <class Visit> __device__ void visit_kind(Int kind, Visit& visit)
{
    switch (kind) {
    case 0: visit(Half()); break;
    case 1: visit(Bfloat()); break;
    case 2: visit(Single()); break;
    case 3: visit(double()); break;
    case 4: visit(Complex<Single>()); break;
    case 5: visit(Complex<double>()); break;
    }
}

// Threads that work on one chunk together.
struct Team {
    Int chunk;
    int rank, size;
};

__device__ inline Team my_team(Int size)
{
    int width = (int)size, thread = (int)threadIdx.x;
    return {(Int)blockIdx.x * (BLOCK / width) + thread / width, thread % width, width};
}

// The elements of a leaf that make a chunk.
struct Piece {
    const Leaf* leaf;
    const Dim* dims;
    Int group, start, stop;
};

__device__ inline Piece piece_of(const Int* table, Int count, Int chunk)
{
    const Leaf* leaves = (const Leaf*)table;
    Int low = 0, high = count;
    while (high - low > 1) {
        Int middle = (low + high) / 2;
        if (leaves[middle].first <= chunk) low = middle;
        else high = middle;
    }
    const Leaf* leaf = leaves + low;
    Int local = chunk - leaf->first, each = (leaf->length + CHUNK - 1) / CHUNK, group = local / each;
    Int start = group * leaf->length + local % each * CHUNK, end = (group + 1) * leaf->length;
    const Dim* dims = (const Dim*)(leaves + count) + leaf->dim;
    return {leaf, dims, group, start, start + CHUNK < end ? start + CHUNK : end};
}

// The addresses of one element in the first COUNT operands.
template <int COUNT> struct Place {
    Int at[COUNT];

    template <class T> __device__ T& element(int operand) const { return *(T*)at[operand]; }
};

// From the index of an element to its place. What one dimension needs is kept in registers.
template <int COUNT> struct Walk {
    Place<COUNT> base;
    Dim inner;
    const Dim* dims;
    Int outer;

    __device__ Walk(const Piece& piece) : dims(piece.dims), outer(piece.leaf->dims - 1)
    {
        inner = dims[outer];
        for (int k = 0; k < COUNT; k++) base.at[k] = piece.leaf->pointers[k];
    }

    __device__ Place<COUNT> operator()(Int index) const
    {
        Place<COUNT> place = base;
        if (outer) {
            Int rest = index / inner.size;
            step(place, inner, index - rest * inner.size);
            for (Int d = outer - 1; d > 0; d--) {
                index = rest;
                rest = index / dims[d].size;
                step(place, dims[d], index - rest * dims[d].size);
            }
            step(place, dims[0], rest);
        } else step(place, inner, index);
        return place;
    }

    __device__ static void step(Place<COUNT>& place, const Dim& dim, Int times)
    {
        for (int k = 0; k < COUNT; k++) place.at[k] += times * dim.strides[k];
    }
};
