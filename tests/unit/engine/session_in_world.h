/* session_in_world.h - a session of a client among fakes: what the tests of session_in share. */
#ifndef TERN_TESTS_SESSION_IN_WORLD_H
#define TERN_TESTS_SESSION_IN_WORLD_H

#include "unit/engine/in_world.h"

#define HELLO    "EHLO client.example\r\n"
#define STRANGER "203.0.113.9"
#define TO_OWN   "MAIL FROM:<a@b.example>\r\nRCPT TO:<u@own.example>\r\n"
#define OK_MAIL  "250 2.1.0 OK\r\n"
#define OK_RCPT  "250 2.1.5 OK\r\n"
#define GO_AHEAD "354 End data with <CR><LF>.<CR><LF>\r\n"
#define DENIED   "550 5.7.1 relay access denied\r\n"

static inline int setup(void **state)
{
    *state = world_new();
    return 0;
}

static inline int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static inline void greeted(struct world *w, const char *ip)
{
    connect_from(w, ip);
    assert_string_equal(said(w), "220 mx.own.example ESMTP Tern\r\n");
    const char *caps = say(w, HELLO);
    assert_non_null(strstr(caps, "250-mx.own.example\r\n"));
}

static inline void relay_all(struct world *w)
{
    static struct net_cidr any = { .base.family = NET_IPV4 };

    w->settings->relay_from = &any;
    w->settings->n_relay_from = 1;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
