// scale: every element times one number of its own precision, rounded once.

template <class R> __device__ inline void scaled(R x, const Multiplier& number, double size, R& result)
{
    double wide = widen(x);
    // Products of numbers of 24 bits or less are exact in double, and a quotient of theirs is never
    // so near the middle between two that rounding it twice would matter.
    if (number.ample) return narrow(number.divide ? wide / size : wide * size, result);
    // The limit is so small that what falls below the normal range has to be cut towards zero. Just
    // below the smallest normal, rounding to nearest is still as fine as the multiplier allows for.
    constexpr int smallest = Format<R>::smallest;
    int shift, move = (int)(number.divide ? -number.exponent : number.exponent);
    double value = number.value, mantissa = frexp(wide, &shift);
    shift += move;
    int half = shift >> 1;
    double quotient = number.divide ? mantissa / value : mantissa * value;
    double steps = ldexp(quotient, shift - smallest), left = ldexp(mantissa, half);
    double coarse = ldexp(1 - 0x1p-7, Format<R>::precision - 1);
    if (fabs(steps) < coarse) narrow(ldexp(trunc(steps), smallest), result);
    else if (number.divide) narrow(left / ldexp(value, half - shift), result);
    else narrow(left * ldexp(value, shift - half), result);
}

template <class R>
__device__ inline void scaled(Complex<R> x, const Multiplier& number, double size, Complex<R>& result)
{
    scaled(x.re, number, size, result.re);
    scaled(x.im, number, size, result.im);
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

template <class T> struct Component { typedef T type; };
template <class R> struct Component<Complex<R>> { typedef R type; };

struct Scale {
    Piece piece;
    Team team;
    Decision decision;
    double error, slack;

    template <class T> __device__ void operator()(T)
    {
        typedef Format<typename Component<T>::type> Facts;
        const Int* at = piece.leaf->pointers;
        if (decision.action == KEEP && at[IN] == at[OUT]) return;
        Multiplier number =
            multiplier(decision.factor, error, decision.limit, slack, Facts::precision, Facts::smallest);
        double size = ldexp(number.value, (int)number.exponent);
        Walk<2> walk(piece);
        for (Int i = piece.start + team.rank; i < piece.stop; i += team.size) {
            Place<2> place = walk(i);
            T x = T();
            if (decision.action == KEEP) x = place.template element<T>(IN);
            else if (decision.action == SCALE) scaled(place.template element<T>(IN), number, size, x);
            else if (decision.action == SPOIL) spoil(x);
            place.template element<T>(OUT) = x;
        }
    }
};

extern "C" __global__ void scale(
    const Int* table, Int count, Int chunks, Int size, const Decision* decisions, Int grouped, double error,
    double slack)
{
    Team team = my_team(size);
    if (team.chunk >= chunks) return;
    Piece piece = piece_of(table, count, team.chunk);
    Scale task = {piece, team, decisions[grouped ? piece.group : 0], error, slack};
    visit_kind(piece.leaf->kind, task);
}

// clamp: a bound is one more operand, a number one that never moves.

struct Clamp {
    Piece piece;
    Team team;

    template <class T> __device__ void operator()(T)
    {
        const Int* at = piece.leaf->pointers;
        Walk<OPERANDS> walk(piece);
        for (Int i = piece.start + team.rank; i < piece.stop; i += team.size) {
            Place<OPERANDS> place = walk(i);
            T x = place.template element<T>(IN);
            auto value = widen(x);
            // NaN stays; a NaN bound is neither above nor below and so is taken.
            if (at[LOWER] && value == value && !(value >= widen(place.template element<T>(LOWER)))) {
                x = place.template element<T>(LOWER);
                value = widen(x);
            }
            if (at[UPPER] && value == value && !(value <= widen(place.template element<T>(UPPER))))
                x = place.template element<T>(UPPER);
            place.template element<T>(OUT) = x;
        }
    }
};

extern "C" __global__ void clamp(const Int* table, Int count, Int chunks, Int size)
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
