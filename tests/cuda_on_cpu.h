// What CUDA C++ has and C++ has not, for one block at a time on the CPU.
//
// The threads of a block are fibers. Each runs until it meets __syncthreads() or ends, then the
// next one does, in the order of their numbers or against it: a result that depends on the order
// is a race.

#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <utility>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx;

inline double __longlong_as_double(long long bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline long long __double_as_longlong(double x)
{
    long long bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

// In the place of arrays.cu's.
#define CONVERSIONS

inline double from_single(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned to_single(double x)
{
    float rounded = (float)x;
    unsigned bits;
    memcpy(&bits, &rounded, sizeof bits);
    return bits;
}

inline unsigned cut_to_single(double x)
{
    unsigned bits = to_single(x);
    return fabs(from_single(bits)) > fabs(x) ? bits - 1 : bits;
}

inline double from_half(unsigned short bits)
{
    _Float16 x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned short to_half(double x)
{
    _Float16 rounded = (_Float16)x;
    unsigned short bits;
    memcpy(&bits, &rounded, sizeof bits);
    return bits;
}

namespace fibers {

constexpr unsigned THREADS = 256;
constexpr size_t STACK = 1 << 17;

enum State { READY, WAITING, ENDED };
struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    State state;
    bool begun;
};

static Fiber all[THREADS];
static char stacks[THREADS][STACK];
static jmp_buf scheduler;
static void (*body)(const long long*);
static const long long* words;

// Give control back; it returns when the fiber is resumed.
inline void leave(State state)
{
    Fiber& mine = all[threadIdx.x];
    mine.state = state;
    if (!_setjmp(mine.resume)) _longjmp(scheduler, 1);
}

inline void run()
{
    for (;;) {
        body(words);
        leave(ENDED);
    }
}

inline void enter(unsigned thread)
{
    Fiber& fiber = all[thread];
    threadIdx.x = thread;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.resume, 1);
    fiber.begun = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks[thread];
    fiber.start.uc_stack.ss_size = STACK;
    makecontext(&fiber.start, run, 0);
    setcontext(&fiber.start);
}

inline void run_block(unsigned threads, bool backwards)
{
    for (unsigned k = 0; k < threads; k++) all[k].state = READY;
    for (bool again = true; again;) {
        again = false;
        for (unsigned k = 0; k < threads; k++) {
            unsigned thread = backwards ? threads - 1 - k : k;
            if (all[thread].state != ENDED) enter(thread);
            again = again || all[thread].state == WAITING;
        }
    }
}

// A launch hands over its arguments as 64-bit words, whatever they are.
template <class T> T argument(long long word)
{
    static_assert(sizeof(T) == sizeof word, "arguments are of 64 bits");
    T value;
    memcpy(&value, &word, sizeof value);
    return value;
}

template <class... A, size_t... K>
void call(void (*kernel)(A...), const long long* given, std::index_sequence<K...>)
{
    kernel(argument<A>(given[K])...);
}

template <class... A> constexpr size_t count_of(void (*)(A...)) { return sizeof...(A); }

typedef void (*Task)(const long long*);

inline void launch(
    Task task, const long long* given, long long blocks, long long threads, long long backwards)
{
    body = task;
    words = given;
    for (long long k = 0; k < blocks; k++) {
        blockIdx.x = (unsigned)(backwards ? blocks - 1 - k : k);
        run_block((unsigned)threads, backwards != 0);
    }
}

}  // namespace fibers

inline void __syncthreads() { fibers::leave(fibers::WAITING); }

// The functions by which the tests call a kernel: how many arguments it takes, and a launch.
#define LAUNCHER(kernel)                                                                    \
    extern "C" long long count_##kernel() { return (long long)fibers::count_of(kernel); }   \
    extern "C" void launch_##kernel(                                                        \
        const long long* words, long long blocks, long long threads, long long backwards)   \
    {                                                                                       \
        fibers::Task task = [](const long long* given) {                                    \
            fibers::call(kernel, given, std::make_index_sequence<fibers::count_of(kernel)>()); \
        };                                                                                  \
        fibers::launch(task, words, blocks, threads, backwards);                            \
    }
