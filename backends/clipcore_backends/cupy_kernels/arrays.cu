// Clip any number of arrays in four launches: measure, finish, decide, scale; and clamp in one.
//
// A table that comes from the host names the leaves: where their elements are, as addresses and
// strides, and how long their groups are. A group is cut into chunks, a chunk is the work of a
// team of threads, a block is one or more teams. So the number of launches is the same for one
// leaf and for ten thousand, for one group and for a million.
//
// The files of this folder are compiled as one, in the order arrays, decide, measure, scale,
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

template <class T> struct Component {
    typedef T type;
};
template <class R> struct Component<Complex<R>> {
    typedef R type;
};

template <class R> struct Format;
template <> struct Format<Half> {
    static constexpr int number = 0, precision = 11, smallest = -24;
};
template <> struct Format<Bfloat> {
    static constexpr int number = 1, precision = 8, smallest = -133;
};
template <> struct Format<Single> {
    static constexpr int number = 2, precision = 24, smallest = -149;
};
template <> struct Format<double> {
    static constexpr int number = 3, precision = 53, smallest = -1074;
};

// The same by their numbers, which are those of the first kinds.
struct Facts {
    int precision, smallest;
};

__device__ inline Facts facts_of(Int format)
{
    if (format == 0) return {Format<Half>::precision, Format<Half>::smallest};
    if (format == 1) return {Format<Bfloat>::precision, Format<Bfloat>::smallest};
    if (format == 2) return {Format<Single>::precision, Format<Single>::smallest};
    return {Format<double>::precision, Format<double>::smallest};
}

// Conversions, each one instruction, written so that nothing flushes what they read or round to.
// Where the source is compiled for a CPU, its own conversions take their place.
#ifndef CONVERSIONS
__device__ inline double from_single(unsigned bits)
{
    double x;
    asm("cvt.f64.f32 %0, %1;" : "=d"(x) : "f"(__uint_as_float(bits)));
    return x;
}

__device__ inline unsigned to_single(double x)
{
    float rounded;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(rounded) : "d"(x));
    return __float_as_uint(rounded);
}

// Towards zero.
__device__ inline unsigned cut_to_single(double x)
{
    float rounded;
    asm("cvt.rz.f32.f64 %0, %1;" : "=f"(rounded) : "d"(x));
    return __float_as_uint(rounded);
}

__device__ inline double from_half(unsigned short bits)
{
    double x;
    asm("cvt.f64.f16 %0, %1;" : "=d"(x) : "h"(bits));
    return x;
}

__device__ inline unsigned short to_half(double x)
{
    unsigned short rounded;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(rounded) : "d"(x));
    return rounded;
}
#endif

template <class T> __device__ inline T widen(T x) { return x; }
__device__ inline double widen(Half x) { return from_half(x.bits); }
__device__ inline double widen(Bfloat x) { return from_single((unsigned)x.bits << 16); }
__device__ inline double widen(Single x) { return from_single(x.bits); }
template <class R> __device__ inline Complex<double> widen(Complex<R> x)
{
    return {widen(x.re), widen(x.im)};
}

// Round to nearest, ties to even: numbers that are not beyond the format's largest.
__device__ inline void narrow(double x, double& result) { result = x; }
__device__ inline void narrow(double x, Single& result) { result.bits = to_single(x); }
__device__ inline void narrow(double x, Half& result) { result.bits = to_half(x); }

// Not every GPU rounds to bfloat16 in one instruction. What a float leaves out, a last bit of 1 stands
// for (rounding to odd): so rounding twice is as good as once.
__device__ inline void narrow(double x, Bfloat& result)
{
    unsigned bits = cut_to_single(x);
    bits |= from_single(bits) != x;
    result.bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

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
    Int local = chunk - leaf->first, each = (leaf->length + CHUNK - 1) / CHUNK;
    Int group = local < each ? 0 : local / each;  // a division of 64 bits takes long
    Int start = group * leaf->length + (local - group * each) * CHUNK, end = (group + 1) * leaf->length;
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

// As many elements as a thread reads or writes at once.
template <class T> struct alignas(16) Packet {
    static constexpr int SIZE = 16 / sizeof(T);
    T elements[SIZE];
};

// Where a chunk's packets are in the first COUNT operands, if its elements lie one after the other in
// each of them; what is left of the chunk begins at `rest`.
template <class T, int COUNT> struct Packets {
    Int at[COUNT], rest;
    int count;

    __device__ Packets(const Piece& piece) : count((int)((piece.stop - piece.start) / Packet<T>::SIZE))
    {
        bool apart = piece.leaf->dims != 1;
        for (int k = 0; k < COUNT; k++) {
            at[k] = piece.leaf->pointers[k] + piece.start * (Int)sizeof(T);
            apart = apart || piece.dims->strides[k] != (Int)sizeof(T) || at[k] % (Int)sizeof(Packet<T>);
        }
        if (apart) count = 0;
        rest = piece.start + count * Packet<T>::SIZE;
    }

    __device__ Packet<T>& packet(int operand, int index) const { return ((Packet<T>*)at[operand])[index]; }

    // Read some packets of a thread before the first is used.
    template <int AHEAD> __device__ void read(int first, int step, Packet<T> (&ahead)[AHEAD]) const
    {
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (first + k * step < count) ahead[k] = packet(IN, first + k * step);
    }
};

// Complex numbers are changed component by component.
template <class R, class Change> __device__ inline R changed(R x, const Change& change) { return change(x); }
template <class R, class Change>
__device__ inline Complex<R> changed(Complex<R> x, const Change& change)
{
    return {change(x.re), change(x.im)};
}

// Write what becomes of a chunk's elements, from `start` on, to the second operand.
template <class T, class Change>
__device__ inline void write(const Piece& piece, const Team& team, Int start, const Change& change)
{
    if (start == piece.stop) return;
    Walk<2> walk(piece);
    for (Int i = start + team.rank; i < piece.stop; i += team.size) {
        Place<2> place = walk(i);
        place.template element<T>(OUT) = changed(place.template element<T>(IN), change);
    }
}

// The same packet by packet, where that is possible; return where the rest begins.
template <class T, class Change>
__device__ inline Int write_packets(const Piece& piece, const Team& team, const Change& change)
{
    constexpr int AHEAD = 8;
    Packets<T, 2> packets(piece);
    for (int i = team.rank; i < packets.count; i += AHEAD * team.size) {
        Packet<T> ahead[AHEAD];
        packets.read(i, team.size, ahead);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (i + k * team.size >= packets.count) break;
#pragma unroll
            for (int n = 0; n < Packet<T>::SIZE; n++)
                ahead[k].elements[n] = changed(ahead[k].elements[n], change);
            packets.packet(OUT, i + k * team.size) = ahead[k];
        }
    }
    return packets.rest;
}
