/* auth.c - one exchange of AUTH. Layer: engine. Interface: auth.h. */
#include "engine/auth.h"

#include "base/base64.h"
#include "engine/verdict.h"

enum { NONCE_WORDS = 3 }; /* of 64 bits */

struct auth {
    struct engine *e;
    struct snapshot *snapshot;
    const struct session_view *session;
    auth_done *done;
    void *owner;
    struct sasl_server *sasl;
    enum sasl_event asked; /* what is undecided: VERIFY or SECRET */
    struct credentials_view credentials;
    struct hook_input input;
    struct hook_call *call;
    struct password_ask *ask;
    struct auth_outcome outcome;
    struct arena arena;  /* texts of the outcome */
    struct str identity; /* given by the hook */
};

/* ---- outcomes ---- */

static int conclude(struct auth *a, struct smtp_reply reply, const char *why)
{
    a->outcome.reply = reply;
    a->outcome.why = why;
    return 1;
}

static int error(struct auth *a, int r)
{
    return conclude(a, REPLY(454, ENH(4, 7, 0), "Temporary authentication failure"),
                    r == -EAGAIN    ? "too many checks of passwords wait"
                    : r == -ENOTSUP ? "this system cannot check such an entry"
                    : r == -EINVAL  ? "the policy's password is no good entry"
                                    : "out of memory");
}

static int succeeded(struct auth *a)
{
    a->outcome.identity = a->identity.n ? a->identity : a->outcome.user;
    return conclude(a, REPLY(235, ENH(2, 7, 0), "Authentication successful"), NULL);
}

static int ask_hook(struct auth *a);

/* 1: there is an outcome; 0: it waits. */
static int on_event(struct auth *a, int r, const struct sasl_server_event *ev)
{
    if (r < 0)
        return error(a, r);
    if (ev->user.n && !a->outcome.user.n)
        a->outcome.user = arena_str(&a->arena, ev->user);
    switch (ev->type) {
    case SASL_CHALLENGE:
        return conclude(a, (struct smtp_reply){ 334, ENH_NONE, ev->message }, NULL);
    case SASL_VERIFY:
    case SASL_SECRET:
        a->asked = ev->type;
        a->credentials = (struct credentials_view){
            .mechanism = sasl_server_mechanism(a->sasl),
            .user = a->outcome.user,
            .password = ev->type == SASL_VERIFY ? ev->password : STR_NONE,
        };
        return a->outcome.user.p ? ask_hook(a) : error(a, -ENOMEM);
    case SASL_OK: return succeeded(a);
    case SASL_FAILED: break;
    }
    return conclude(a, REPLY(535, ENH(5, 7, 8), "Authentication credentials invalid"), ev->why);
}

static int verified(struct auth *a, bool fits)
{
    struct sasl_server_event ev;
    int r = sasl_server_verified(a->sasl, fits, &ev);

    return on_event(a, r, &ev);
}

static int secret(struct auth *a, const struct password_entry *entry, bool known)
{
    struct sasl_server_event ev;
    int r = sasl_server_secret(a->sasl, entry, known, &ev);

    return on_event(a, r, &ev);
}

/* ---- the password file ---- */

/* What no time was needed for is told by the return value; the rest by the session's callback. */
static void tell(struct auth *a)
{
    a->done(a->owner, &a->outcome);
}

static void on_password(void *owner, const struct password_answer *answer)
{
    struct auth *a = owner;
    int r;

    a->ask = NULL;
    if (answer->result < 0)
        r = error(a, answer->result);
    else if (a->asked == SASL_VERIFY)
        r = verified(a, answer->result == 1);
    else
        r = secret(a, answer->entry, answer->result == 1);
    CHECK(r == 1);
    tell(a);
}

/* entry: empty: the file's. */
static int ask_passwords(struct auth *a, struct str entry)
{
    struct port_passwords *port = a->e->ports.passwords;
    const struct password_question q = {
        .type = a->asked == SASL_VERIFY ? PASSWORD_CHECK : PASSWORD_SECRET,
        .mechanism = a->credentials.mechanism,
        .user = a->credentials.user,
        .password = a->credentials.password,
        .entry = entry,
    };

    a->ask = port->ask(port, &q, on_password, a);
    return a->ask ? 0 : error(a, -ENOMEM);
}

static bool has_password_file(const struct auth *a)
{
    return a->e->ports.passwords && a->snapshot->settings->auth.passwords.n;
}

/* ---- the hook ---- */

/* The hook's word for what the client must prove: an entry, or else the password itself. */
static int check_against(struct auth *a, struct str password)
{
    struct password_entry entry = { .kind = PASSWORD_PLAIN, .text = password };
    const char *why;
    bool fits = false;

    if (password_is_entry(password)) {
        if (password_parse(password, &entry, &why) < 0)
            return error(a, -EINVAL);
        if (a->asked == SASL_VERIFY && entry.kind != PASSWORD_PLAIN && a->e->ports.passwords)
            return ask_passwords(a, password);
    }
    if (a->asked == SASL_SECRET)
        return secret(a, entry.text.n > PASSWORD_MAX ? NULL : &entry, true);
    int r = password_check(&entry, a->credentials.password, &fits);
    return r < 0 ? error(a, r) : verified(a, fits);
}

static int accepted(struct auth *a, const struct hook_result *result)
{
    if (result->identity.n)
        a->identity = arena_str(&a->arena, result->identity);
    if (result->identity.n && !a->identity.p)
        return error(a, -ENOMEM);
    if (result->password.p)
        return check_against(a, result->password);
    if (a->asked == SASL_VERIFY)
        return verified(a, true);
    /* A proof of what? */
    return conclude(a, REPLY(535, ENH(5, 7, 8), "Authentication credentials invalid"),
                    "the policy accepted without a password that the proof could be checked by");
}

/* 550 is what reject{} says when it is not told otherwise, and no reply to AUTH. */
static int refused(struct auth *a, const struct hook_result *result)
{
    struct smtp_reply reply = verdict_reply(result);

    if (reply.code == 550) {
        reply.code = 535;
        reply.enhanced = ENH(5, 7, 8);
    }
    reply.text = arena_str(&a->arena, reply.text);
    return conclude(a, reply, "refused by policy");
}

static int decide(struct auth *a, const struct hook_result *result)
{
    if (result->verdict != VERDICT_NONE)
        a->outcome.policy = arena_str(&a->arena, result->decided_by);
    switch (result->verdict) {
    case VERDICT_ACCEPT: return accepted(a, result);
    case VERDICT_NONE: break;
    case VERDICT_FAILED: COUNT(a->e, hooks_failed, 1); /* fall through */
    default: return refused(a, result);
    }
    if (has_password_file(a)) {
        a->outcome.policy = STR("passwords");
        return ask_passwords(a, STR_NONE);
    }
    return a->asked == SASL_VERIFY ? verified(a, false) : secret(a, NULL, false);
}

static void hook_answered(void *owner, struct hook_result *result)
{
    struct auth *a = owner;

    a->call = NULL;
    if (decide(a, result))
        tell(a);
}

static int ask_hook(struct auth *a)
{
    struct hooks *hooks = a->snapshot->hooks;
    struct hook_result result;
    int answered = 1, r = 0;

    hook_result_init(&result);
    if (hooks_have(hooks, HOOK_AUTH)) {
        a->input = (struct hook_input){ .session = a->session, .credentials = &a->credentials };
        answered = hooks->run(hooks, HOOK_AUTH, &a->input, &result, hook_answered, a, &a->call);
    }
    if (answered)
        r = decide(a, &result);
    hook_result_done(&result);
    return r;
}

/* ---- life ---- */

int auth_say(struct auth *a, const struct str *response, const struct auth_outcome **ret)
{
    struct sasl_server_event ev;
    int r;

    if (a->outcome.reply.code == 334)
        r = sasl_server_step(a->sasl, *response, &ev);
    else
        r = sasl_server_start(a->sasl, response, &ev);
    *ret = &a->outcome;
    return on_event(a, r, &ev);
}

struct auth *auth_new(struct engine *e, struct snapshot *snapshot,
                      const struct session_view *session, enum sasl_mechanism m, auth_done *done,
                      void *owner)
{
    struct auth *a = calloc(1, sizeof(*a));
    uint64_t chance[NONCE_WORDS];
    char nonce[BASE64_TEXT(sizeof(chance))];

    if (!a)
        return NULL;
    for (size_t i = 0; i < NONCE_WORDS; i++)
        chance[i] = engine_random(e);
    struct sasl_server_options opt = {
        .host = snapshot->settings->hostname,
        .nonce = str_make(nonce, base64_encode(str_make(chance, sizeof(chance)), nonce)),
        .salt_key = e->shared->auth_key,
    };
    a->sasl = sasl_server_new(m, &opt);
    if (!a->sasl) {
        free(a);
        return NULL;
    }
    a->e = e;
    a->snapshot = snapshot_ref(snapshot);
    a->session = session;
    a->done = done;
    a->owner = owner;
    a->outcome.mechanism = m;
    arena_init(&a->arena, 0);
    return a;
}

struct auth *auth_free(struct auth *a)
{
    if (!a)
        return NULL;
    if (a->call)
        a->snapshot->hooks->cancel(a->snapshot->hooks, a->call);
    if (a->ask)
        a->e->ports.passwords->cancel(a->e->ports.passwords, a->ask);
    sasl_server_free(a->sasl);
    snapshot_unref(a->snapshot);
    arena_done(&a->arena);
    free(a);
    return NULL;
}

uint32_t auth_mechanisms(struct engine *e, const struct snapshot *snapshot)
{
    const struct settings *set = snapshot->settings;
    struct port_passwords *port = e->ports.passwords;
    uint32_t allowed = 0;

    if (!set->auth.offered && !hooks_have(snapshot->hooks, HOOK_AUTH))
        return 0;
    if (set->auth.mechanisms)
        return set->auth.mechanisms;
    if (port && set->auth.passwords.n)
        allowed = port->mechanisms(port);
    return allowed ? allowed : SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN);
}
