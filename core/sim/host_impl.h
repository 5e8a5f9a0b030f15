/* host_impl.h - what host.c and host_session.c share. Layer: sim, internal. */
#ifndef TERN_SIM_HOST_IMPL_H
#define TERN_SIM_HOST_IMPL_H

#include "sim/host.h"

enum { MAX_HIDDEN = 8 };

struct user {
    struct list link;
    char *name, *password;
};

struct rule {
    struct list link;
    struct sim_rule is; /* texts are copies */
    uint32_t used;
};

struct received {
    struct list link;
    struct arena arena;
    struct sim_received is;
};

struct sim_host {
    struct sim_listener listener;
    struct sim_clock *clock;
    struct sim_net *net;
    char *name;
    struct list rules, sessions;
    size_t busy;         /* sessions that are not idle */
    struct list retired; /* rules that were cleared */
    struct received **inbox;
    size_t n_inbox, cap_inbox;
    int64_t delay_ms;
    enum sim_starttls starttls;
    struct sim_certificate cert;
    bool has_cert;
    uint64_t size_limit;
    bool smtputf8, chunking, binarymime, requiretls, lmtp;
    struct smtp_limits limits;
    uint64_t over_limits;
    bool deliver_by, priority;
    uint32_t deliver_by_min_s;
    char *hidden[MAX_HIDDEN];
    size_t n_hidden;
    struct sim_random *chaos;
    uint32_t chaos_reset, chaos_silence, chaos_transient;
    struct list users;
    uint32_t mechanisms;
    bool auth_in_clear;
    uint64_t accepted, quits, rsets, auths;
    size_t open, peak, most; /* most: 0: any number */
    enum sim_action beyond;
    uint64_t turned_away;
};

void host_accept(struct sim_listener *l, struct stream *s);
void host_drop_sessions(struct sim_host *h);
/* The rule that decides, or NULL. Counts its use. */
const struct sim_rule *host_find_rule(struct sim_host *h, enum smtp_stage stage, struct str address,
                                      bool extended);
bool host_has_rule(const struct sim_host *h, enum smtp_stage stage);
const struct user *host_find_user(const struct sim_host *h, struct str name); /* NULL: none */
struct received *received_new(void);
void received_free(struct received *r);
void host_take(struct sim_host *h, struct received *r);

#endif
