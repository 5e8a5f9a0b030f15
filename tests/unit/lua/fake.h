/* fake.h - a tree of files in memory and the few ports that hooks can reach, for tests of lua/. */
#ifndef TERN_TESTS_UNIT_LUA_FAKE_H
#define TERN_TESTS_UNIT_LUA_FAKE_H

#include "lua/policy.h"

#define MS_PER_S 1000

struct fake_file {
    const char *path, *text;
    int error; /* instead of the text: -EACCES... */
};

struct fake_query {
    struct list link;
    dns_done *done;
    void *owner;
    struct dns_answer *answer;
    char name[256];
    enum dns_type type;
};

/* One answer that the fake DNS has: "example.com" MX -> status and records. */
struct fake_record {
    const char *name;
    enum dns_type type;
    enum dns_status status;
    struct dns_record records[4];
    size_t n;
};

struct fake {
    struct policy_files files;
    const struct fake_file *tree; /* ends with a path of NULL */
    size_t reads;

    struct port_clock clock;
    int64_t now;
    struct timer_heap heap;
    struct list laters;
    struct port_dns dns;
    const struct fake_record *zone; /* ends with a name of NULL */
    struct list queries;            /* asked and not answered */
    bool silent;                    /* no answers */
    size_t cancelled;
    struct port_random random;
    uint64_t next_random;
    struct port_journal journal;
    struct buf log;     /* JSON lines */
    struct hooks *told; /* gets every event */
    struct ports ports;

    struct policy_source *source;
    struct settings *settings;
    struct hooks *hooks;
    struct policy_error err;
};

void fake_init(struct fake *f, const struct fake_file *tree);
void fake_done(struct fake *f); /* frees hooks, settings and source too */

/* Loads "/etc/tern/tern.lua" of the tree, or `config` as that file when it is not NULL. 0, or -errno
 * with f->err. */
int fake_load(struct fake *f, const char *config);
/* fake_load and policy_vm_new; fails the test when either does. */
void fake_start(struct fake *f, const char *config);

/* One turn of the loop: due timers, answers, what was put off. Then time goes on in such turns. */
void fake_turn(struct fake *f);
void fake_advance(struct fake *f, int64_t ms);

bool fake_logged(struct fake *f, const char *text);
size_t fake_count(struct fake *f, const char *text); /* occurrences in the log */

/* ---- calling hooks --------------------------------------------------------------------------- */

/* Inputs with everything filled in: a session, a message from a@sender.example, a recipient. */
struct fake_mail {
    struct net_addr session_client, session_local;
    struct session_view session;
    struct message_view message;
    struct recipient_view recipient;
    struct attempt_view attempt;
    struct etrn_view etrn;
    struct address sender, rcpt;
    struct arena arena;
    struct hook_input in;
};
void fake_mail_init(struct fake_mail *m, const char *sender, const char *recipient);
void fake_mail_done(struct fake_mail *m);

struct fake_call {
    struct hook_result result;
    struct hook_call *call;
    bool waits;    /* not answered at once */
    unsigned done; /* how often it was told */
    /* Copies, which live as long as this. */
    char decided_by[128], text[512];
};
/* Runs it; turns the loop for up to 60 s of its time until it has answered. */
void fake_run(struct fake *f, enum hook h, const struct fake_mail *m, struct fake_call *ret);
/* Runs it and returns, waiting or not. */
void fake_begin(struct fake *f, enum hook h, const struct fake_mail *m, struct fake_call *ret);
void fake_call_done(struct fake_call *c);

/* Runs a hook `rcpt` whose body is `lua` (ctx, tern and route are there); gives the log, with what it
 * prints. */
const char *fake_eval(struct fake *f, const char *lua);

#endif
