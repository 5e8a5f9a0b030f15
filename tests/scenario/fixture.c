/* What most scenarios need. */
#include "fixture.h"

static const char ZONE[] = "example.com.       MX 10 mx1.example.com.\n"
                           "example.com.       MX 20 mx2.isp.example.\n"
                           "mx1.example.com.   A 192.0.2.1\n"
                           "mx2.isp.example.   A 198.51.100.25\n"
                           "sender.example.    MX 10 mx.sender.example.\n"
                           "mx.sender.example. A 192.0.2.77\n";

struct settings *fixture_settings(void)
{
    struct settings *s = settings_new();
    CHECK(s != NULL);
    s->hostname = STR("mx2.isp.example");
    s->file = STR("test");
    s->fingerprint = 1;
    return s;
}

void fixture_init(struct fixture *f, uint64_t seed, int workers)
{
    *f = (struct fixture){ 0 };
    f->w = sim_world_new(seed, workers);
    f->settings = fixture_settings();
    sim_policy_init(&f->policy, sim_world_clock(f->w));
    sim_world_zone(f->w, ZONE);
    sim_policy_domain(&f->policy, "example.com", NULL);
    sim_world_host(f->w, "192.0.2.77");
}

void fixture_start(struct fixture *f)
{
    sim_journal_echo(sim_world_journal(f->w),
                     getenv("SIM_ECHO") != NULL); /* to look at a failure */
    sim_world_configure(f->w, f->settings, sim_policy_hooks, &f->policy);
    sim_world_start(f->w);
}

void fixture_done(struct fixture *f)
{
    f->w = sim_world_free(f->w);
    sim_policy_done(&f->policy);
    f->settings = settings_unref(f->settings);
}

uint64_t counted(struct fixture *f, const char *event)
{
    return sim_journal_count(sim_world_journal(f->w), event);
}

size_t queued(struct fixture *f)
{
    return sim_world_queued(f->w);
}

int mail_to(struct fixture *f, const char *recipient)
{
    return sim_world_mail(f->w, "client@sender.example", recipient, "hello");
}

size_t got(struct sim_host *h, const char *text)
{
    return sim_host_count_with(h, str_of(text));
}
