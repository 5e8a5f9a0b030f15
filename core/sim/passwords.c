/* passwords.c - a password file in memory. Layer: sim. Interface: passwords.h. */
#include "sim/passwords.h"

struct password_ask {
    struct list link;
    struct timer timer;
    struct sim_passwords *all;
    password_done *done;
    void *owner;
    struct password_answer answer;
    struct password_entry entry;
    char *password; /* of a decoy or user that is the password itself: entry points into it */
};

static void ask_free(struct password_ask *a)
{
    sim_timer_stop(a->all->clock, &a->timer);
    list_remove(&a->link);
    free(a->password);
    free(a);
}

static void on_due(struct timer *t)
{
    struct password_ask *a = CONTAINER_OF(t, struct password_ask, timer);

    a->done(a->owner, &a->answer);
    ask_free(a);
}

static int check(const struct password_entry *e, struct str password)
{
    bool fits = false;
    int r = password_check(e, password, &fits);

    return r < 0 ? r : fits;
}

static int check_question(struct sim_passwords *p, const struct password_question *q)
{
    struct password_entry e;
    const char *why;

    if (q->entry.n)
        return password_parse(q->entry, &e, &why) < 0 ? -EINVAL : check(&e, q->password);
    return p->file && password_file_find(p->file, q->user, &e) ? check(&e, q->password) : 0;
}

static void find_secret(struct sim_passwords *p, const struct password_question *q,
                        struct password_ask *a)
{
    enum password_want want =
        q->mechanism == SASL_CRAM_MD5 ? PASSWORD_WANT_PLAIN : PASSWORD_WANT_SCRAM;

    if (!p->file)
        return;
    a->answer.result = password_file_find(p->file, q->user, &a->entry) &&
                       sasl_entry_serves(&a->entry, q->mechanism);
    if (!a->answer.result && !password_file_decoy(p->file, q->user, want, &a->entry))
        return;
    a->answer.entry = &a->entry;
    if (a->entry.text.n) { /* the file may be replaced before this is told */
        a->password = str_dup(a->entry.text);
        CHECK(a->password != NULL);
        a->entry.text.p = a->password;
    }
}

static struct password_ask *port_ask(struct port_passwords *self, const struct password_question *q,
                                     password_done *done, void *owner)
{
    struct sim_passwords *p = CONTAINER_OF(self, struct sim_passwords, port);
    if (SIM_STARVED())
        return NULL;
    struct password_ask *a = sim_alloc(sizeof *a);

    a->all = p;
    a->done = done;
    a->owner = owner;
    if (p->busy)
        a->answer.result = -EAGAIN;
    else if (q->type == PASSWORD_CHECK)
        a->answer.result = check_question(p, q);
    else
        find_secret(p, q, a);
    list_push(&p->asks, &a->link);
    timer_init(&a->timer, on_due);
    sim_timer_in(p->clock, &a->timer, SIM_PASSWORDS_MS);
    return a;
}

static void port_cancel(struct port_passwords *self, struct password_ask *a)
{
    ask_free(a);
}

static uint32_t port_mechanisms(struct port_passwords *self)
{
    const struct password_file *file = CONTAINER_OF(self, struct sim_passwords, port)->file;

    if (!file)
        return 0;
    return SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN) |
           (password_file_all_scram(file) ? SASL_BIT(SASL_SCRAM_SHA_256) : 0) |
           (password_file_all_plain(file) ? SASL_BIT(SASL_CRAM_MD5) : 0);
}

void sim_passwords_init(struct sim_passwords *p, struct sim_clock *clock)
{
    *p = (struct sim_passwords){
        .port = { .mechanisms = port_mechanisms, .ask = port_ask, .cancel = port_cancel },
        .clock = clock,
    };
    list_init(&p->asks);
}

int sim_passwords_set(struct sim_passwords *p, struct str text, unsigned *ret_line, char *ret_why)
{
    struct password_file *next = NULL;

    if (text.n) {
        int r = password_file_parse(text, &next, ret_line, ret_why);
        if (r < 0)
            return r;
    }
    password_file_free(p->file);
    p->file = next;
    return 0;
}

void sim_passwords_done(struct sim_passwords *p)
{
    LIST_FOREACH(it, &p->asks)
    ask_free(LIST_ENTRY(it, struct password_ask, link));
    p->file = password_file_free(p->file);
}
