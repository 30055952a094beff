/* Threads that live as long as the call that needs them, and the barrier at which they meet.
 *
 * No thread outlives the call, so a process may fork between calls, and nothing has to be shut down.
 * Creating one costs some 20 microseconds, which a call of many steps does not feel. A wait at the
 * barrier is mostly shorter than the system could put a thread to sleep: it spins. Where it takes long,
 * because more threads run than there are cores, it sleeps until it is woken: to yield alone gives
 * little away, and a meeting took the milliseconds that the system leaves a thread on a core.
 *
 * The system may start a thread, or wake it, on its maker's processor while others are idle, and leaves both
 * there: in turns they wait for each other, so that it never sees two that want to run. That took three
 * times as long as on two processors; so one of them leaves.
 */
#ifndef FASTDL_THREADS_H
#define FASTDL_THREADS_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define MOST_THREADS 64
#define EAGER_SPINS 1000 /* some microseconds; a pause would be felt */
#define SPINS 1200       /* a few microseconds more */
#define YIELDS 1500      /* some 100 microseconds in all: no phase's threads differ by as much */
#define MOST_MOVES 16    /* of a thread from one processor to another in a call */

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#if defined(__linux__)
/* The number of the processor that runs this thread, from 1 on, or 0. */
static inline int processor_here(void) { return sched_getcpu() + 1; }

/* Goes from this processor to another one that the thread may use, if there is one. */
static void leave_processor(int number) {
    unsigned long allowed[128], others[128];
    const int bits = 8 * sizeof *allowed, word = (number - 1) / bits;
    const long bytes = syscall(SYS_sched_getaffinity, 0, sizeof allowed, allowed);
    if (bytes < (word + 1) * (long)sizeof *allowed) return;
    memcpy(others, allowed, bytes);
    others[word] &= ~(1UL << (number - 1) % bits);
    if (!syscall(SYS_sched_setaffinity, 0, bytes, others)) syscall(SYS_sched_setaffinity, 0, bytes, allowed);
}
#else
static inline int processor_here(void) { return 0; }
static void leave_processor(int number) { (void)number; }
#endif

/* Each thread counts its arrivals in a cache line of its own, which the others watch: one transfer
 * from core to core for a meeting, where a common counter and a common flag take three. */
typedef struct {
    int threads;
    _Alignas(64) atomic_int sleepers;
    struct {
        _Alignas(64) atomic_int meetings;
        atomic_int processor; /* where it was then */
        int moves;
    } arrivals[MOST_THREADS];
} barrier;

#if defined(__linux__)
static inline void wake(atomic_int *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
/* Until it is woken, or a millisecond has passed, or at once where the word has another value by now. */
static inline void sleep_on(atomic_int *word, int value) {
    const struct timespec most = {.tv_nsec = 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &most, NULL, 0);
}
#else
static inline void wake(atomic_int *word) { (void)word; }
static inline void sleep_on(atomic_int *word, int value) {
    (void)word, (void)value;
    sched_yield();
}
#endif

/* Tells the other threads that this one has come, and what it wrote before. Between this and `await` it may
 * do what none of them needs, while its news cross to the other cores. */
static inline void arrive(barrier *b, int thread) {
    atomic_int *own = &b->arrivals[thread].meetings;
    const int now = atomic_load_explicit(own, memory_order_relaxed) + 1;
    atomic_store_explicit(&b->arrivals[thread].processor, processor_here(), memory_order_relaxed);
    atomic_store_explicit(own, now, memory_order_release);
}

/* Parts from a thread that has been waited for, where it can't run because this one does; if both left, they
 * might meet again. */
static void part_from(barrier *b, int thread, int other) {
    const int here = processor_here();
    const int others = atomic_load_explicit(&b->arrivals[other].processor, memory_order_relaxed);
    if (!here || here != others || thread < other) return;
    if (b->arrivals[thread].moves++ < MOST_MOVES) leave_processor(here);
}

/* Returns when all threads have arrived; what they wrote before is then seen. */
static inline void await(barrier *b, int thread) {
    if (b->threads == 1) return;
    atomic_int *own = &b->arrivals[thread].meetings;
    const int now = atomic_load_explicit(own, memory_order_relaxed);
    /* Who is about to sleep may not be seen, nor see the arrival, and then wakes by itself: a fence that kept the
     * two in order took 2 % of the planar network's time. */
    if (atomic_load_explicit(&b->sleepers, memory_order_relaxed)) wake(own);
    for (int t = 0; t < b->threads; t++) {
        atomic_int *other = &b->arrivals[t].meetings;
        int seen;
        for (int spins = 0; (seen = atomic_load_explicit(other, memory_order_acquire)) - now < 0; spins++) {
            if (spins > YIELDS) {
                atomic_fetch_add(&b->sleepers, 1);
                if ((seen = atomic_load(other)) - now < 0) sleep_on(other, seen);
                atomic_fetch_sub(&b->sleepers, 1);
            } else if (spins > SPINS) {
                sched_yield();
            } else if (spins > EAGER_SPINS) {
                relax();
            } else if (spins == EAGER_SPINS) {
                part_from(b, thread, t);
            }
        }
    }
}

static inline void meet(barrier *b, int thread) {
    arrive(b, thread);
    await(b, thread);
}

typedef struct {
    void (*work)(void *job, int thread);
    void *job;
    int thread;
    int processor;    /* the caller's */
    atomic_int *open; /* 0: wait, 1: work, -1: leave */
} assignment;

static void *start_assignment(void *argument) {
    assignment *mine = argument;
    int open;
    if (mine->processor && mine->processor == processor_here()) leave_processor(mine->processor);
    while (!(open = atomic_load_explicit(mine->open, memory_order_acquire))) sched_yield();
    if (open > 0) mine->work(mine->job, mine->thread);
    return NULL;
}

/* Runs work(job, thread) for each thread below `threads`, number 0 being the caller's own. Returns 0,
 * or -1 with nothing done where the system gives no more threads. */
static int run_threads(void (*work)(void *, int), void *job, int threads) {
    pthread_t handles[MOST_THREADS];
    assignment assignments[MOST_THREADS];
    atomic_int open = 0;
    int started = 1;
    const int here = threads > 1 ? processor_here() : 0;
    for (; started < threads; started++) {
        assignments[started] = (assignment){work, job, started, here, &open};
        if (pthread_create(&handles[started], NULL, start_assignment, &assignments[started])) break;
    }
    const int complete = started == threads;
    atomic_store_explicit(&open, complete ? 1 : -1, memory_order_release);
    if (complete) work(job, 0);
    while (--started > 0) pthread_join(handles[started], NULL);
    return complete ? 0 : -1;
}

#endif
