/* world.h - what the tests of io share: a loop with streams, ends of streams that note what they
 * are told. */
#ifndef TERN_TESTS_IO_WORLD_H
#define TERN_TESTS_IO_WORLD_H

#include "io/listener.h"
#include "io/loop.h"
#include "io/net.h"

enum { WORLD_SECONDS = 20 }; /* after which a test has failed */

struct world {
    struct io_loop *loop;
    struct io_net *net;
    struct ports ports;
    struct listen_settings listen;
    struct io_listener *listener;
    struct net_addr at; /* where it listens */

    struct timer tick, limit;
    bool (*done)(void *arg);
    void *arg;
    bool timed_out;
};

void world_open(struct world *w, struct tls_context *tls);
void world_close(struct world *w);
/* Listens on a free port of 127.0.0.1, or on a Unix path. Accepted streams go to *end (the next one
 * to the same, unless it is in use). */
struct end;
void world_listen(struct world *w, const char *addr, enum listen_tls tls, struct end *end);
/* Turns until done(arg) is true; fails the test after WORLD_SECONDS. */
void world_until(struct world *w, bool (*done)(void *arg), void *arg);
/* Turns for so many milliseconds. */
void world_turn(struct world *w, int64_t ms);

/* One end of a stream and its owner. */
struct end {
    struct world *w;
    struct stream *s; /* NULL once closed, or not yet there */
    struct buf got;
    int opened, data, drained, secured, closed, accepted;
    int error;
    char why[256];
    char version[32], cipher[64], subject[256];
    bool verified, resumed;
    bool in_call; /* a call of ours to the stream runs: no callback may come */

    bool echo;                /* aborts when that fails */
    size_t take;              /* at most so many bytes are consumed a callback; 0: all */
    bool stubborn;            /* consumes nothing */
    bool holds, resumes_held; /* the stream, behind each of its data; and lets go of it at once */
    bool resumes;             /* calls stream_resume in the data callback when something is left */
    uint32_t dice;            /* not 0: takes what falls, resumes at once or later */
    struct timer resume;
    const char *greeting; /* written when accepted or opened */
    bool closes_after_greeting, aborts_on_data, starttls_on_data;
    struct tls_request tls;
    const struct net_addr *source; /* to dial from */
};

extern const struct stream_events end_events;
void end_init(struct end *e, struct world *w);
void end_done(struct end *e); /* aborts an open stream */
void end_dial(struct end *e, const struct net_addr *to);
/* stream_write in pieces of `piece` bytes (0: at once). */
void end_write(struct end *e, const void *bytes, size_t n, size_t piece);
void end_close(struct end *e);

/* Conditions for world_until; arg is a struct end. */
bool end_opened(void *end);
bool end_accepted(void *end);
bool end_closed(void *end);
bool end_secured(void *end);
bool end_has_data(void *end);

/* A pseudo-random number below n. */
uint32_t end_roll(struct end *e, uint32_t n);

/* Plain blocking client socket, connected to a TCP address. */
int raw_connect(const struct net_addr *to);

#endif
