/* watchdog.c - processor time of what a thread runs in Lua. Interface: watchdog.h.
 *
 * Layer: lua. All state is the thread's own. The handler touches it only in the thread that it
 * interrupts, so plain volatile stores are enough.
 */
#include "lua/watchdog.h"

#include <lauxlib.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#if defined(__SANITIZE_THREAD__)
#define TIMER_WORKS 0 /* its runtime holds signals back until the next call of libc */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TIMER_WORKS 0
#endif
#endif
#ifndef TIMER_WORKS
#define TIMER_WORKS 1
#endif

enum {
    COUNT_STEP = 10000,      /* without a timer: instructions between two looks */
    COUNT_PER_TICK = 200000, /* and instructions that pass for one tick: fewer than run in one */
};

static _Thread_local struct {
    lua_State *volatile running;
    volatile sig_atomic_t ticks;
    volatile sig_atomic_t started, limit, overdue;
    int counted; /* without a timer: instructions since the last tick */
    bool ready, timed;
    timer_t timer;
} dog;

static pthread_once_t install_once = PTHREAD_ONCE_INIT;
static pthread_key_t cleanup_key;
static bool installed;

static void stop_overdue(lua_State *L, lua_Debug *ar)
{
    if (lua_isyieldable(L)) {
        lua_yield(L, 0); /* takes effect when the hook returns */
        return;
    }
    luaL_where(L, 0); /* a hook has no frame of its own: 0 is what it interrupted */
    lua_pushfstring(L, "processor time: ran for more than %d ms without waiting",
                    (int)dog.limit * WATCHDOG_TICK_MS);
    lua_concat(L, 2);
    lua_error(L);
}

/* lua_sethook visits each call that is active. In a deep recursion that takes longer than a tick, so
 * that doing it at every tick would leave no time for the code to reach the hook. */
static void arm(lua_State *L)
{
    if (lua_gethook(L) != stop_overdue)
        lua_sethook(L, stop_overdue, LUA_MASKCOUNT, 1);
}

static void tick(void)
{
    lua_State *L = dog.running;

    dog.ticks++;
    if (!L || dog.ticks - dog.started <= dog.limit)
        return;
    dog.overdue = 1;
    arm(L);
}

static void on_count(lua_State *L, lua_Debug *ar)
{
    dog.counted += COUNT_STEP;
    if (dog.counted >= COUNT_PER_TICK) {
        dog.counted = 0;
        tick();
    }
}

static void on_signal(int sig)
{
    int saved = errno;
    tick();
    errno = saved;
}

static void thread_ends(void *unused)
{
    if (dog.timed)
        timer_delete(dog.timer);
    dog.timed = dog.ready = false;
}

/* A child has the memory of the thread that forked, but not its timer. */
static void child_begins(void)
{
    dog.timed = dog.ready = false;
}

static int signal_number(void)
{
    return SIGRTMIN + 4;
}

static void install(void)
{
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

    sigemptyset(&sa.sa_mask);
    pthread_atfork(NULL, NULL, child_begins);
    installed = pthread_key_create(&cleanup_key, thread_ends) == 0 &&
                sigaction(signal_number(), &sa, NULL) == 0;
}

static bool start_timer(void)
{
    struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = signal_number() };
    const struct itimerspec every = { .it_interval.tv_nsec = WATCHDOG_TICK_MS * 1000000L,
                                      .it_value.tv_nsec = WATCHDOG_TICK_MS * 1000000L };
    sigset_t set;

    ev.sigev_notify_thread_id = gettid();
    sigemptyset(&set);
    sigaddset(&set, signal_number());
    if (!installed || pthread_sigmask(SIG_UNBLOCK, &set, NULL) != 0 ||
        timer_create(CLOCK_THREAD_CPUTIME_ID, &ev, &dog.timer) < 0)
        return false;
    if (pthread_setspecific(cleanup_key, &dog) != 0 ||
        timer_settime(dog.timer, 0, &every, NULL) < 0) {
        timer_delete(dog.timer);
        return false;
    }
    return true;
}

/* Once for each thread. */
static void get_ready(void)
{
    dog.ready = true;
    pthread_once(&install_once, install);
    dog.timed = TIMER_WORKS && start_timer();
}

void watchdog_settle(lua_State *L)
{
    if (dog.overdue) {
        arm(L);
    } else if (!dog.timed) {
        if (lua_gethook(L) != on_count)
            lua_sethook(L, on_count, LUA_MASKCOUNT, COUNT_STEP);
    } else if (lua_gethook(L)) {
        lua_sethook(L, NULL, 0, 0);
    }
}

void watchdog_begin(lua_State *L, unsigned ms, struct watch *outer)
{
    if (!dog.ready)
        get_ready();
    *outer = (struct watch){
        .running = dog.running, .started = dog.started, .limit = dog.limit, .overdue = dog.overdue
    };
    dog.running = NULL; /* while the rest changes */
    dog.overdue = 0;
    dog.started = dog.ticks;
    dog.limit = (sig_atomic_t)((ms + WATCHDOG_TICK_MS - 1) / WATCHDOG_TICK_MS);
    watchdog_settle(L);
    dog.running = L;
}

bool watchdog_end(const struct watch *outer)
{
    dog.running = NULL;
    bool overdue = dog.overdue;
    dog.started = outer->started;
    dog.limit = outer->limit;
    dog.overdue = outer->overdue;
    dog.running = outer->running;
    return overdue;
}

lua_State *watchdog_switch(lua_State *to)
{
    lua_State *was = dog.running;

    dog.running = to;
    return was;
}

void watchdog_pause(struct watch_pause *ret)
{
    ret->running = dog.running;
    dog.running = NULL;
    ret->ticks = dog.ticks;
}

void watchdog_resume(const struct watch_pause *pause)
{
    dog.started += dog.ticks - pause->ticks;
    dog.running = pause->running;
}

bool watchdog_overdue(void)
{
    return dog.overdue;
}
