/* Threads that live as long as the call that needs them, and the barrier at which they meet.
 *
 * No thread outlives the call, so a process may fork between calls, and nothing has to be shut down.
 * Creating one costs some 20 microseconds, which a call of many steps does not feel. A wait at the
 * barrier is mostly shorter than the system could put a thread to sleep: it spins, and gives way
 * after a while, for the case that more threads run than there are cores.
 */
#ifndef FASTDL_THREADS_H
#define FASTDL_THREADS_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define MOST_THREADS 64
#define EAGER_SPINS 1000 /* some microseconds; a pause would be felt */
#define SPINS 1200       /* some 10 microseconds: longer than phases differ, less than sleep costs */

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

/* Each thread counts its arrivals in a cache line of its own, which the others watch: one transfer
 * from core to core for a meeting, where a common counter and a common flag take three. */
typedef struct {
    int threads;
    struct {
        _Alignas(64) atomic_int meetings;
    } arrivals[MOST_THREADS];
} barrier;

/* Returns when all threads have called it; what they wrote before is then seen by all. */
static inline void meet(barrier *b, int thread) {
    if (b->threads == 1) return;
    const int now = atomic_load_explicit(&b->arrivals[thread].meetings, memory_order_relaxed) + 1;
    atomic_store_explicit(&b->arrivals[thread].meetings, now, memory_order_release);
    for (int t = 0; t < b->threads; t++)
        for (int spins = 0;
             atomic_load_explicit(&b->arrivals[t].meetings, memory_order_acquire) - now < 0; spins++) {
            if (spins > SPINS)
                sched_yield();
            else if (spins > EAGER_SPINS)
                relax();
        }
}

typedef struct {
    void (*work)(void *job, int thread);
    void *job;
    int thread;
    atomic_int *open; /* 0: wait, 1: work, -1: leave */
} assignment;

static void *start_assignment(void *argument) {
    assignment *mine = argument;
    int open;
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
    for (; started < threads; started++) {
        assignments[started] = (assignment){work, job, started, &open};
        if (pthread_create(&handles[started], NULL, start_assignment, &assignments[started])) break;
    }
    const int complete = started == threads;
    atomic_store_explicit(&open, complete ? 1 : -1, memory_order_release);
    if (complete) work(job, 0);
    while (--started > 0) pthread_join(handles[started], NULL);
    return complete ? 0 : -1;
}

#endif
