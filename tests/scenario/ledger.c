/* Conservation of mail. */
#include "ledger.h"

#include <stdio.h>

#include "mail/message.h"

void ledger_init(struct ledger *l, struct fixture *f)
{
    *l = (struct ledger){ .f = f };
    l->r = calloc(LEDGER_MAX, sizeof *l->r);
    CHECK(l->r != NULL);
}

void ledger_done(struct ledger *l)
{
    free(l->r);
    l->r = NULL;
}

struct sim_host *ledger_host(struct ledger *l, const char *addr)
{
    CHECK(l->n_hosts < LEDGER_HOSTS);
    return l->hosts[l->n_hosts++] = sim_world_host(l->f->w, addr);
}

static void read_outcomes(struct ledger *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->n_open; i++) {
        const struct sim_outcome *out = l->open[i].out;
        if (!out->done) {
            l->open[kept++] = l->open[i];
            continue;
        }
        bool taken = out->stage == SMTP_STAGE_FINAL && smtp_reply_positive(&out->reply);
        for (size_t k = 0; k < l->open[i].n; k++)
            l->r[l->open[i].first + k].acked = taken && smtp_reply_positive(&out->rcpt[k]);
    }
    l->n_open = kept;
}

void ledger_send(struct ledger *l, const char *const *domains, size_t n, bool wait)
{
    static char text[LEDGER_TO][128];
    static struct str to[LEDGER_TO];
    CHECK(n <= LEDGER_TO && l->n + n <= LEDGER_MAX);
    if (l->n_open == LEDGER_OPEN)
        read_outcomes(l);
    CHECK(l->n_open < LEDGER_OPEN);
    for (size_t i = 0; i < n; i++) {
        snprintf(text[i], sizeof text[i], "r%zu@%s", l->n + i, domains[i]);
        to[i] = str_of(text[i]);
    }
    struct sim_mail m = { .sender = STR("client@sender.example"),
                          .recipients = to,
                          .n_recipients = n,
                          .content = STR("Subject: ledger\r\n\r\nhello\r\n"),
                          .priority = l->priority };
    l->open[l->n_open].out = wait ? sim_world_send(l->f->w, &m) : sim_world_post(l->f->w, &m);
    l->open[l->n_open].first = l->n;
    l->open[l->n_open].n = n;
    l->n_open++;
    l->n += n;
}

/* The number in "r<number>@"; -1: it is none of ours. */
static int64_t number_of(const struct ledger *l, struct str address)
{
    ptrdiff_t at = str_chr(address, '@');
    uint64_t k;
    if (at < 2 || address.p[0] != 'r' ||
        str_to_u64(str_make(address.p + 1, (size_t)at - 1), &k) < 0)
        return -1;
    return k < l->n ? (int64_t)k : -1;
}

/* The recipients that a notification says have failed. */
static void note_bounces(struct ledger *l, struct str dsn)
{
    static const struct str field = { "Final-Recipient: rfc822;", 24 };
    ptrdiff_t at;
    if (str_find(dsn, STR("Action: failed")) < 0)
        return;
    while ((at = str_find(dsn, field)) >= 0) {
        dsn = str_from(dsn, (size_t)at + field.n);
        ptrdiff_t end = str_chr(dsn, '\r');
        int64_t k = number_of(l, str_trim(str_first(dsn, end < 0 ? dsn.n : (size_t)end)));
        if (k >= 0)
            l->r[k].bounced++;
    }
}

static void look_into_inboxes(struct ledger *l)
{
    for (size_t h = 0; h < l->n_hosts; h++)
        for (size_t i = 0; i < sim_host_inbox(l->hosts[h]); i++) {
            const struct sim_received *m = sim_host_received(l->hosts[h], i);
            if (m->sender.n == 0)
                note_bounces(l, m->content);
            for (size_t k = 0; k < m->n_recipients; k++) {
                int64_t n = number_of(l, m->recipients[k]);
                if (n >= 0)
                    l->r[n].delivered++;
            }
        }
}

static void look_at_entry(struct ledger *l, struct port_spool *spool, const struct spool_entry *e)
{
    struct spool_entry entry;
    struct arena arena;
    struct recipient r = { 0 };
    struct message *m = NULL;
    struct buf bytes;
    buf_init(&bytes, 0);
    arena_init(&arena, 0);
    CHECK(spool->read_recipient(spool, &e->id, e->n, &entry, &bytes) == 0);
    CHECK(recipient_decode(&arena, e->n, buf_str(&bytes), &r) == 0);
    int64_t k = number_of(l, r.address.text);
    if (k >= 0)
        l->r[k].queued++;
    CHECK(spool->read_message(spool, &e->id, &bytes) == 0);
    CHECK(message_decode(&e->id, buf_str(&bytes), &m) == 0);
    if (m->sender.text.n == 0 && spool->read_chunk(spool, &e->id, 0, &bytes) == 0)
        note_bounces(l, buf_str(&bytes));
    message_unref(m);
    recipient_done(&r);
    arena_done(&arena);
    buf_done(&bytes);
}

static void look_into_queue(struct ledger *l)
{
    struct port_spool *spool = sim_world_ports(l->f->w, 0)->spool;
    struct spool_entry e, after = { 0 };
    bool begun = false;
    while (spool->scan_entries(spool, begun ? &after.id : NULL, after.n, &e, 1) == 1) {
        look_at_entry(l, spool, &e);
        after = e;
        begun = true;
    }
}

struct ledger_sum ledger_audit(struct ledger *l)
{
    struct ledger_sum s = { 0 };
    read_outcomes(l);
    for (size_t i = 0; i < l->n; i++)
        l->r[i].delivered = l->r[i].bounced = l->r[i].queued = 0;
    look_into_inboxes(l);
    look_into_queue(l);
    for (size_t i = 0; i < l->n; i++) {
        s.acked += l->r[i].acked;
        s.delivered += l->r[i].delivered > 0;
        s.bounced += l->r[i].bounced > 0;
        s.queued += l->r[i].queued > 0;
        s.duplicates += l->r[i].delivered + l->r[i].bounced + l->r[i].queued > 1;
        if (!l->r[i].acked || l->r[i].delivered || l->r[i].bounced || l->r[i].queued)
            continue;
        s.lost++;
        fprintf(stderr, "recipient %zu was acknowledged, and is nowhere\n", i);
    }
    return s;
}
