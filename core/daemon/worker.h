/* worker.h - one thread of the router: a loop with all that is made on it, and the engine in it.
 *
 * Layer: daemon. The main thread makes all workers, starts them, talks to them by messages, and frees
 * them when their threads have ended. What a worker owns is touched by its own thread only while that
 * runs.
 */
#ifndef TERN_DAEMON_WORKER_H
#define TERN_DAEMON_WORKER_H

#include <pthread.h>

#include "daemon/journal.h"
#include "daemon/passwords.h"
#include "engine/engine.h"
#include "io/https.h"
#include "io/listener.h"
#include "io/net.h"
#include "io/resolver.h"
#include "spool/spool.h"

enum { WORKERS_MAX = SPOOL_MAX_PORTS - 1 /* the main thread has a port too */ };

/* One address on which a worker listens. */
struct worker_listener {
    struct net_addr configured; /* what the settings say: the port may be 0 there */
    struct io_listener *io;
};

struct worker {
    int number;
    pthread_t thread;
    bool started;
    struct io_loop *loop;
    struct io_net *net;
    struct io_resolver *resolver;
    struct io_https *https;
    struct journal journal;
    struct passwords_port passwords;
    struct ports ports;
    struct engine *engine;
    struct settings *settings; /* the listeners borrow from it */
    struct settings *outgoing; /* the ones before: until listeners that stop have let go */
    struct later forget_outgoing;
    struct worker_listener *listeners;
    size_t n_listeners;

    /* Stopping: the main thread's message, and the answer. */
    struct worker_message stop_message, idle_message, quit_message;
    bool stopped;                                /* has been told; listens no more */
    void (*idle)(struct worker *w, void *owner); /* in the main thread */
    void *idle_owner;
    struct port_workers *main; /* where the answer goes */
    struct timer idle_timer;
    int64_t idle_since; /* the engine has nothing to do any more; 0: it has */
    int quit_rounds;
};

struct worker_options {
    struct settings *settings; /* a reference is taken */
    struct tls_context *tls;
    struct spool *spool;
    struct log_sink *log;
    struct passwords *passwords;
    enum event_level level;
};

/* Makes the loop and the ports; no engine yet, and listens nowhere.
 * -ENOMEM, -EMFILE... */
int worker_new(int number, int count, const struct worker_options *o, struct worker **ret) MUST_USE;
/* Not while its thread runs. NULL is fine; returns NULL. */
struct worker *worker_free(struct worker *w);
/* The engine, the first part of worker_free: it needs the spool's ports. */
void worker_free_engine(struct worker *w);

/* New settings: listens where they say, with fds[i] for settings->listen[i] (taken over: it becomes -1),
 * or -1 where the worker listens already. TLS and DNS as they say. In the worker's thread, or before it is started.
 * Also when out of memory (-ENOMEM) the settings are in force, but for listeners that could not be made. */
int worker_configure(struct worker *w, struct settings *settings, struct tls_context *tls,
                     int *fds);
/* The listener for that configured address, or NULL. */
const struct worker_listener *worker_listener_for(const struct worker *w,
                                                  const struct net_addr *configured);

/* Starts the thread. -errno. */
int worker_start(struct worker *w) MUST_USE;
/* Graceful end, step by step; from the main thread. idle is called there, once, when nothing is in progress
 * any more. main: the main thread's. */
void worker_stop(struct worker *w, struct port_workers *main,
                 void (*idle)(struct worker *w, void *owner), void *owner);
/* Ends the loop after what has been posted so far, and waits for the thread. */
void worker_join(struct worker *w);

#endif
