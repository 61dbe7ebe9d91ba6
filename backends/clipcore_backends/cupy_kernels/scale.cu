// scale: every element times one number of its own precision, rounded once.

struct Factor {
    double size, inverse;
};

// Products of numbers of 24 bits or less are exact in double. A quotient of theirs is either a number
// of 25 bits, or never so near one that rounding it twice would matter; from the inverse, and what is
// left over (Markstein 1990), it is found to an ulp of double, and exactly where it has 25 bits.
template <class R> __device__ inline double quotient_of(R, double wide, const Factor& factor)
{
    double quotient = wide * factor.inverse, rest = fma(-quotient, factor.size, wide);
    return copysign(fma(rest, factor.inverse, quotient), wide);
}
__device__ inline double quotient_of(double, double wide, const Factor& factor) { return wide / factor.size; }

// Where the limit is so small that what falls below the normal range has to be cut towards zero. Just
// below the smallest normal, rounding to nearest is still as fine as the multiplier allows for.
template <class R> __device__ inline void cut(R x, const Multiplier& number, R& result)
{
    constexpr int smallest = Format<R>::smallest;
    int shift, move = (int)(number.divide ? -number.exponent : number.exponent);
    double value = number.value, mantissa = frexp(widen(x), &shift);
    shift += move;
    int half = shift >> 1;
    double quotient = number.divide ? mantissa / value : mantissa * value;
    double steps = ldexp(quotient, shift - smallest), left = ldexp(mantissa, half);
    double coarse = ldexp(1 - 0x1p-7, Format<R>::precision - 1);
    if (fabs(steps) < coarse) narrow(ldexp(trunc(steps), smallest), result);
    else if (number.divide) narrow(left / ldexp(value, half - shift), result);
    else narrow(left * ldexp(value, shift - half), result);
}

__device__ inline void spoil(Half& x) { x.bits = 0x7e00u; }
__device__ inline void spoil(Bfloat& x) { x.bits = 0x7fc0u; }
__device__ inline void spoil(Single& x) { x.bits = 0x7fc00000u; }
__device__ inline void spoil(double& x) { x = __longlong_as_double(0x7ff8000000000000ll); }

template <class R> __device__ inline void spoil(Complex<R>& x)
{
    spoil(x.re);
    spoil(x.im);
}

// What becomes of a component.

struct Keep {
    template <class R> __device__ R operator()(R x) const { return x; }
};
struct Multiply {
    Factor factor;
    template <class R> __device__ R operator()(R x) const
    {
        narrow(widen(x) * factor.size, x);
        return x;
    }
};
struct Divide {
    Factor factor;
    template <class R> __device__ R operator()(R x) const
    {
        narrow(quotient_of(x, widen(x), factor), x);
        return x;
    }
};
struct Become {
    Decision decision;
    Factor factor;
    template <class R> __device__ R operator()(R x) const
    {
        const Multiplier& number = decision.number;
        R result = R();
        if (decision.action == KEEP) return x;
        if (decision.action == SPOIL) spoil(result);
        else if (decision.action == SCALE && !number.ample) cut(x, number, result);
        else if (decision.action == SCALE) result = number.divide ? Divide{factor}(x) : Multiply{factor}(x);
        return result;
    }
};

struct Scale {
    Piece piece;
    Team team;
    const Decision* decisions;
    Int first;

    template <class T> __device__ void operator()(T)
    {
        Decision decision = decisions[Format<typename Component<T>::type>::number - first];
        const Int* at = piece.leaf->pointers;
        if (decision.action == KEEP && at[IN] == at[OUT]) return;
        double size = ldexp(decision.number.value, (int)decision.number.exponent);
        Factor factor = {size, 1 / size};
        Int rest = piece.start;
        if (decision.action == KEEP) rest = write_packets<T>(piece, team, Keep());
        else if (decision.action == SCALE && decision.number.ample)
            rest = decision.number.divide ? write_packets<T>(piece, team, Divide{factor})
                                          : write_packets<T>(piece, team, Multiply{factor});
        write<T>(piece, team, rest, Become{decision, factor});
    }
};

// The chunks that were measured last come first: the cache has them still.
extern "C" __global__ __launch_bounds__(BLOCK, 2) void scale(
    const Int* table, Int leaves, Int chunks, Int size, const Decision* decisions, Int grouped, Int first,
    Int count)
{
    Team team = my_team(size);
    if (team.chunk >= chunks) return;
    Piece piece = piece_of(table, leaves, chunks - 1 - team.chunk);
    Scale task = {piece, team, decisions + (grouped ? piece.group * count : 0), first};
    visit_kind(piece.leaf->kind, task);
}

// clamp: a bound is one more operand, a number one that never moves.

template <class T> struct Between {
    bool below, above;
    T lower, upper;

    __device__ T operator()(T x) const
    {
        auto value = widen(x);
        // NaN stays; a NaN bound is neither above nor below and so is taken.
        if (below && value == value && !(value >= widen(lower))) {
            x = lower;
            value = widen(x);
        }
        if (above && value == value && !(value <= widen(upper))) x = upper;
        return x;
    }
};

struct Clamp {
    Piece piece;
    Team team;

    template <class T> __device__ void operator()(T)
    {
        const Int* at = piece.leaf->pointers;
        Between<T> between = {at[LOWER] != 0, at[UPPER] != 0, T(), T()};
        Walk<OPERANDS> walk(piece);
        bool numbers = true;
        for (Int d = 0; d < piece.leaf->dims; d++)
            numbers = numbers && !piece.dims[d].strides[LOWER] && !piece.dims[d].strides[UPPER];
        if (numbers) {
            if (between.below) between.lower = *(const T*)at[LOWER];
            if (between.above) between.upper = *(const T*)at[UPPER];
            return write<T>(piece, team, write_packets<T>(piece, team, between), between);
        }
        for (Int i = piece.start + team.rank; i < piece.stop; i += team.size) {
            Place<OPERANDS> place = walk(i);
            if (between.below) between.lower = place.template element<T>(LOWER);
            if (between.above) between.upper = place.template element<T>(UPPER);
            place.template element<T>(OUT) = between(place.template element<T>(IN));
        }
    }
};

extern "C" __global__ __launch_bounds__(BLOCK, 2) void clamp(const Int* table, Int count, Int chunks, Int size)
{
    Team team = my_team(size);
    if (team.chunk >= chunks) return;
    Clamp task = {piece_of(table, count, team.chunk), team};
    switch (task.piece.leaf->kind) {
    case 0: task(Half()); break;
    case 1: task(Bfloat()); break;
    case 2: task(Single()); break;
    case 3: task(double()); break;
    case 6: task((signed char)0); break;
    case 7: task((short)0); break;
    case 8: task((int)0); break;
    case 9: task((Int)0); break;
    case 10: task((unsigned char)0); break;
    case 11: task((unsigned short)0); break;
    case 12: task((unsigned)0); break;
    case 13: task((unsigned long long)0); break;
    }
}

// round: numbers of one format to those of another, none of them on its wrong side.

__device__ inline double number_at(Int kind, Int at, Int i)
{
    if (kind == 0) return widen(((const Half*)at)[i]);
    if (kind == 1) return widen(((const Bfloat*)at)[i]);
    if (kind == 2) return widen(((const Single*)at)[i]);
    return ((const double*)at)[i];
}

template <class R> __device__ inline void put(double x, bool up, R& result)
{
    if (x != x) return spoil(result);
    narrow(x, result);
    double back = widen(result);
    if (up ? back >= x : back <= x) return;
    // The next number; as integers the bits of negative numbers are in reverse.
    bool negative = result.bits >> (8 * sizeof(R) - 1);
    result.bits += negative == up ? -1 : 1;
}
__device__ inline void put(double x, bool, double& result) { result = x; }

extern "C" __global__ void round_all(Int count, Int up, Int from, Int at, Int to, Int out)
{
    Int i = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count) return;
    double x = number_at(from, at, i);
    if (to == 0) put(x, up != 0, ((Half*)out)[i]);
    else if (to == 1) put(x, up != 0, ((Bfloat*)out)[i]);
    else if (to == 2) put(x, up != 0, ((Single*)out)[i]);
    else put(x, up != 0, ((double*)out)[i]);
}
