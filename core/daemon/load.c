/* load.c - a configuration as the daemon needs it. Layer: daemon. Interface: load.h. */
#include "daemon/load.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "daemon/worker.h"

/* A traceback that shows nothing but C says nothing. */
static bool worth_showing(struct str traceback)
{
    struct str line;

    str_cut(&traceback, '\n', &line); /* "stack traceback:" */
    while (str_cut(&traceback, '\n', &line))
        if (!str_empty(str_trim(line)) && !str_starts(str_trim(line), STR("[C]")))
            return true;
    return false;
}

void failure_from_policy(struct failure *f, const struct policy_error *err)
{
    failure_set(f, err->exit_code ? err->exit_code : EX_CONFIG, "%s",
                err->message[0] ? err->message : "the configuration cannot be loaded");
    if (worth_showing(str_of(err->detail)))
        str_copy(str_of(err->detail), f->detail, sizeof(f->detail));
}

static int check_certificate(const struct loaded *l, struct failure *f)
{
    const struct settings *set = l->settings;

    for (size_t i = 0; i < set->n_listen; i++) {
        const struct listen_settings *listen = &set->listen[i];
        if ((listen->tls == LISTEN_TLS_REQUIRE || listen->tls == LISTEN_TLS_IMPLICIT) &&
            !tls_context_serves(l->tls))
            return failure_set(f, EX_CONFIG,
                               STR_FMT ": the listener " STR_FMT
                                       " has tls = \"%s\", and there is no "
                                       "certificate; set tls = { cert = ..., key = ... }",
                               STR_ARG(set->file), STR_ARG(listen->text),
                               listen->tls == LISTEN_TLS_REQUIRE ? "require" : "implicit");
    }
    return 0;
}

static int check_listen(const struct settings *set, struct failure *f)
{
    for (size_t i = 0; i < set->n_listen; i++) {
        const struct listen_settings *listen = &set->listen[i];
        for (size_t j = 0; j < i; j++)
            if (net_addr_eq(&listen->addr, &set->listen[j].addr) && listen->addr.port)
                return failure_set(f, EX_CONFIG,
                                   STR_FMT ": 'listen' has " STR_FMT " twice; remove one",
                                   STR_ARG(set->file), STR_ARG(listen->text));
    }
    return 0;
}

int load_check(const struct loaded *l, struct failure *f)
{
    const struct settings *set = l->settings;
    struct net_addr addr;

    if (set->control.n >= sizeof(addr.path))
        return failure_set(f, EX_CONFIG,
                           STR_FMT
                           ": the path of the control socket is longer than a Unix socket may "
                           "have (%zu bytes): " STR_FMT "; set control = \"/run/tern/control\"",
                           STR_ARG(set->file), sizeof(addr.path) - 1, STR_ARG(set->control));
    if (set->workers > WORKERS_MAX)
        return failure_set(f, EX_CONFIG, STR_FMT ": workers = %u: at most %d are possible",
                           STR_ARG(set->file), set->workers, WORKERS_MAX);
    return check_listen(set, f);
}

/* The authorities by which clients' certificates are judged. */
static int load_client_cas(struct loaded *l, char *error)
{
    const struct settings *set = l->settings;
    char where[64];
    int r = 0;

    if (set->tls_client_ca.n)
        r = tls_context_add_client_ca(l->tls, "tls", set->tls_client_ca, error);
    for (size_t i = 0; i < set->n_listen && r == 0; i++) {
        const struct listen_settings *listen = &set->listen[i];
        if (listen->clients == LISTEN_CLIENTS_NONE || !listen->client_ca.n)
            continue;
        snprintf(where, sizeof(where), "listen[%zu]", i + 1);
        r = tls_context_add_client_ca(l->tls, where, listen->client_ca, error);
    }
    return r;
}

static int tls_failure(int r, struct str where, const char *error, struct failure *f)
{
    return failure_set(f,
                       r == -ENOMEM   ? EX_SOFTWARE
                       : r == -ENOENT ? EX_NOINPUT
                                      : EX_CONFIG,
                       STR_FMT ": %s", STR_ARG(where), error);
}

/* Those that routes show to hosts. */
static int load_own_certificates(struct loaded *l, struct failure *f)
{
    const struct settings *set = l->settings;
    char error[TLS_ERROR_TEXT];

    for (size_t i = 0; i < set->n_own_certificates; i++) {
        const struct own_certificate_settings *c = &set->own_certificates[i];
        AUTO_FREE char *place = str_dup(c->place);
        int r = place ? tls_context_add_own(l->tls, place, c->cert, c->key, error) : -ENOMEM;
        if (r < 0)
            return tls_failure(r, c->place, place ? error : "out of memory", f);
    }
    return 0;
}

static int load_tls(struct loaded *l, struct failure *f)
{
    const struct settings *set = l->settings;
    char error[TLS_ERROR_TEXT], where[64];
    int r = tls_context_new(set->tls_cert, set->tls_key, set->tls_ca, &l->tls, error);

    for (size_t i = 0; i < set->n_certificates && r == 0; i++) {
        const struct certificate_settings *c = &set->certificates[i];
        snprintf(where, sizeof(where), "tls.certificates[%zu]", i + 1);
        r = tls_context_add(l->tls, where, c->cert, c->key, c->names, c->n_names, error);
    }
    if (r == 0)
        r = load_client_cas(l, error);
    return r < 0 ? tls_failure(r, set->file, error, f) : load_own_certificates(l, f);
}

enum { DAY_S = 24 * 3600, EXPIRES_SOON_S = 7 * DAY_S };

bool load_certificate_trouble(const struct tls_certificate_info *c, int64_t now_s, char *dst)
{
    const char *what = now_s < c->not_before   ? "is not valid yet"
                       : now_s >= c->not_after ? "has expired"
                                               : "expires soon";
    int64_t at = now_s < c->not_before ? c->not_before : c->not_after;

    if (now_s >= c->not_before && now_s < c->not_after - EXPIRES_SOON_S)
        return false;
    struct tm tm;
    char date[32] = "";
    time_t t = (time_t)at;
    if (gmtime_r(&t, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M UTC", &tm);
    snprintf(dst, LOAD_TROUBLE_TEXT,
             STR_FMT "%sthe certificate " STR_FMT " (" STR_FMT ") %s: %s %s%s", STR_ARG(c->place),
             c->place.n ? ": " : "", STR_ARG(c->file), STR_ARG(str_first(c->names, 200)), what,
             now_s < c->not_before ? "it is valid from" : "valid until", date,
             now_s < c->not_before ? "" : "; renew it, then 'tern reload'");
    return true;
}

static int load_passwords(struct loaded *l, struct failure *f)
{
    AUTO_FREE char *path = str_dup(l->settings->auth.passwords);

    if (!path)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    return *path ? password_list_load(path, &l->passwords, f) : 0;
}

int load_credentials(struct loaded *l, struct failure *f)
{
    return load_tls(l, f) < 0 || check_certificate(l, f) < 0 || load_passwords(l, f) < 0 ? -1 : 0;
}

int load_source(const char *path, const struct policy_files *files, struct port_journal *journal,
                struct loaded *ret, struct failure *f)
{
    struct policy_options options = { .files = files, .journal = journal };
    struct policy_error *err = calloc(1, sizeof(*err));
    struct loaded l = { 0 };

    *ret = l;
    if (!err)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    int r = policy_load(path, &options, &l.source, &l.settings, err);
    if (r < 0)
        failure_from_policy(f, err);
    free(err);
    if (r < 0)
        return -1;
    *ret = l;
    return 0;
}

int load_policies(const char *path, struct port_journal *journal, struct loaded *ret,
                  struct failure *f)
{
    return load_source(path, NULL, journal, ret, f);
}

int load_configuration(const char *path, struct port_journal *journal, struct loaded *ret,
                       struct failure *f)
{
    struct loaded l;

    *ret = (struct loaded){ 0 };
    if (load_policies(path, journal, &l, f) < 0)
        return -1;
    if (load_check(&l, f) < 0 || load_credentials(&l, f) < 0) {
        loaded_done(&l);
        return -1;
    }
    *ret = l;
    return 0;
}

void loaded_done(struct loaded *l)
{
    l->source = policy_source_unref(l->source);
    l->settings = settings_unref(l->settings);
    l->tls = tls_context_unref(l->tls);
    l->passwords = password_list_unref(l->passwords);
}

int load_control_path(const char *config, char **ret, struct failure *f)
{
    struct loaded l = { 0 };
    struct policy_error *err = calloc(1, sizeof(*err));

    if (!err)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    if (policy_load(config, &(struct policy_options){ 0 }, &l.source, &l.settings, err) < 0) {
        failure_from_policy(f, err);
        free(err);
        return -1;
    }
    free(err);
    *ret = str_dup(l.settings->control);
    loaded_done(&l);
    return *ret ? 0 : failure_set(f, EX_SOFTWARE, "out of memory");
}
