// Kernels of the tests: what the functions of the engine's kernels compute, on the CPU and on a GPU.

// From a sum, a limit and a format to all that is decided, a row of numbers each.
extern "C" __global__ void probe_decide(const double* rows, Int count, double* results)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (k >= count) return;
    const double* in = rows + 8 * k;
    double* out = results + 12 * k;
    Norm factor = {0, 0, 0}, norm = norm_of({in[0], in[1], (Int)in[2]}, (int)in[3]);
    out[0] = norm.hi;
    out[1] = norm.lo;
    out[2] = (double)norm.exponent;
    out[3] = to_float(norm);
    out[4] = decide(norm, in[4], factor);
    out[5] = factor.hi;
    out[6] = factor.lo;
    out[7] = (double)factor.exponent;
    int precision = (int)in[7];
    int smallest = precision == 11   ? Format<Half>::smallest
                   : precision == 8  ? Format<Bfloat>::smallest
                   : precision == 24 ? Format<Single>::smallest
                                     : Format<double>::smallest;
    Multiplier number = multiplier(factor, in[5], in[4], in[6], precision, smallest);
    out[8] = number.value;
    out[9] = (double)number.exponent;
    out[10] = number.divide;
    out[11] = number.ample;
}

extern "C" __global__ void probe_widen(const unsigned short* bits, Int count, Int brain, double* results)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (k < count) results[k] = brain ? widen(Bfloat{bits[k]}) : widen(Half{bits[k]});
}

extern "C" __global__ void probe_single(const unsigned* bits, Int count, double* wide, unsigned* back)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (k >= count) return;
    Single single = {bits[k]};
    wide[k] = widen(single);
    narrow(wide[k], single);
    back[k] = single.bits;
}

extern "C" __global__ void probe_to_single(const double* numbers, Int count, unsigned* bits)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    Single single = {0};
    if (k < count) narrow(numbers[k], single);
    if (k < count) bits[k] = single.bits;
}

extern "C" __global__ void probe_narrow(const double* numbers, Int count, Int brain, unsigned short* bits)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (k >= count) return;
    Half half = {0};
    Bfloat bfloat = {0};
    if (brain) narrow(numbers[k], bfloat);
    else narrow(numbers[k], half);
    bits[k] = brain ? bfloat.bits : half.bits;
}

// A float divided by another, as scale does it.
extern "C" __global__ void probe_quotient(const unsigned* bits, const double* sizes, Int count, unsigned* results)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (k >= count) return;
    Single x = {bits[k]};
    Factor factor = {sizes[k], 1 / sizes[k]};
    narrow(quotient_of(x, widen(x), factor), x);
    results[k] = x.bits;
}

extern "C" __global__ void probe_sum_of_pieces(const double* rows, Int count, double* results)
{
    Int k = (Int)blockIdx.x * BLOCK + threadIdx.x;
    if (k < count) sum_of_pieces(rows + PIECES * k, results[2 * k], results[2 * k + 1]);
}

// Where an element of a chunk is: the chunk's group, first and last element, and the element's addresses.
extern "C" __global__ void probe_place(const Int* table, Int count, Int chunk, Int ahead, Int* results)
{
    if (threadIdx.x) return;
    Piece piece = piece_of(table, count, chunk);
    Place<OPERANDS> place = Walk<OPERANDS>(piece)(piece.start + ahead);
    results[0] = piece.group;
    results[1] = piece.start;
    results[2] = piece.stop;
    for (int k = 0; k < OPERANDS; k++) results[3 + k] = place.at[k];
}

// What must not be: the result depends on which thread and block comes last.
extern "C" __global__ void probe_race(Int* result) { *result = (Int)blockIdx.x * BLOCK + (Int)threadIdx.x; }
