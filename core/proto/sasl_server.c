/* sasl_server.c - the server's side of SASL. Layer: proto. Interface: sasl.h.
 *
 * Who guesses must not learn which users exist. So an exchange for a user that is not there, or
 * whose entry does not serve the mechanism, takes the same messages and the same work (`known` is
 * false, the secret is a decoy) and fails where a wrong password fails.
 */
#include "proto/sasl_text.h"

enum stage {
    STAGE_START,
    STAGE_FIRST,  /* the first response is awaited */
    STAGE_SECOND, /* LOGIN's password, SCRAM's proof */
    STAGE_THIRD,  /* SCRAM: the client's empty answer to our signature */
    STAGE_DECIDE, /* VERIFY or SECRET has been told */
    STAGE_SPENT,
};

struct sasl_server {
    enum sasl_mechanism mechanism;
    enum stage stage;
    bool known;           /* the secret is the user's own */
    bool foreign_authzid; /* wants to act for somebody else, which nobody may */
    size_t user_n, nonce_n, client_nonce_n, host_n;
    char user[SASL_MAX_USER], nonce[SASL_MAX_NONCE], host[SASL_MAX_USER];
    uint8_t salt_key[DIGEST_SHA256_SIZE];
    char response[SASL_MAX_MESSAGE]; /* what VERIFY's password lies in; CRAM-MD5's proof */
    size_t response_n;
    /* SCRAM: */
    struct password_entry entry; /* text is not used: see password */
    char password[PASSWORD_MAX]; /* when the entry is the password itself */
    size_t password_n, gs2_header_n;
    char gs2_header[SASL_MAX_USER * 3 + 8];
    struct buf auth_message;
    struct buf out;
};

static int failed(struct sasl_server *s, const char *why, struct sasl_server_event *ret)
{
    s->stage = STAGE_SPENT;
    *ret = (struct sasl_server_event){ .type = SASL_FAILED,
                                       .user = str_make(s->user, s->user_n),
                                       .why = why };
    return 0;
}

static int malformed(struct sasl_server *s, struct sasl_server_event *ret)
{
    return failed(s, "malformed response", ret);
}

/* Success, unless who it is wants to be somebody else. */
static int decided(struct sasl_server *s, bool fits, struct sasl_server_event *ret)
{
    if (!fits)
        return failed(s, s->known ? "wrong password" : "no such user", ret);
    if (s->foreign_authzid)
        return failed(s, "wants to act for another user", ret);
    s->stage = STAGE_SPENT;
    *ret = (struct sasl_server_event){ .type = SASL_OK, .user = str_make(s->user, s->user_n) };
    return 0;
}

/* Sends what stands in `out`. */
static int challenge(struct sasl_server *s, enum stage next, struct sasl_server_event *ret)
{
    if (s->out.failed)
        return s->out.failed == -EMSGSIZE ? malformed(s, ret) : s->out.failed;
    s->stage = next;
    *ret = (struct sasl_server_event){ .type = SASL_CHALLENGE, .message = buf_str(&s->out) };
    return 0;
}

static int ask(struct sasl_server *s, enum sasl_event type, struct str password,
               struct sasl_server_event *ret)
{
    s->stage = STAGE_DECIDE;
    *ret = (struct sasl_server_event){ .type = type,
                                       .user = str_make(s->user, s->user_n),
                                       .password = password };
    return 0;
}

static bool keep_user(struct sasl_server *s, struct str user)
{
    if (!sasl_user_ok(user))
        return false;
    memcpy(s->user, user.p, user.n);
    s->user_n = user.n;
    return true;
}

static void note_authzid(struct sasl_server *s, struct str authzid)
{
    s->foreign_authzid = authzid.n > 0 && !str_eq(authzid, str_make(s->user, s->user_n));
}

static bool password_ok(struct str password)
{
    return password.n > 0 && password.n <= SASL_MAX_PASSWORD && str_chr(password, '\0') < 0;
}

/* ---- PLAIN, LOGIN ---- */

/* [authzid] NUL authcid NUL passwd */
static int plain(struct sasl_server *s, struct str text, struct sasl_server_event *ret)
{
    struct str authzid, user, password;

    if (!str_cut(&text, '\0', &authzid) || !str_cut(&text, '\0', &user) || !text.p)
        return malformed(s, ret);
    password = text;
    if (!password_ok(password) || !keep_user(s, user))
        return malformed(s, ret);
    note_authzid(s, authzid);
    return ask(s, SASL_VERIFY, password, ret);
}

static int login_user(struct sasl_server *s, struct str text, struct sasl_server_event *ret)
{
    if (!keep_user(s, text))
        return malformed(s, ret);
    buf_add_str(&s->out, STR("Password:"));
    return challenge(s, STAGE_SECOND, ret);
}

static int login_password(struct sasl_server *s, struct str text, struct sasl_server_event *ret)
{
    return password_ok(text) ? ask(s, SASL_VERIFY, text, ret) : malformed(s, ret);
}

/* ---- CRAM-MD5 ---- */

static void add_cram_challenge(const struct sasl_server *s, struct buf *out)
{
    buf_add_char(out, '<');
    buf_add(out, s->nonce, s->nonce_n);
    buf_add_char(out, '@');
    buf_add(out, s->host, s->host_n);
    buf_add_char(out, '>');
}

/* user SP 32 digits. A user's name may have blanks of its own. */
static int cram_response(struct sasl_server *s, struct str text, struct sasl_server_event *ret)
{
    ptrdiff_t space = str_rchr(text, ' ');

    if (space < 0 || text.n - (size_t)space - 1 != (size_t)2 * DIGEST_MD5_SIZE ||
        !keep_user(s, str_first(text, (size_t)space)))
        return malformed(s, ret);
    return ask(s, SASL_SECRET, STR_NONE, ret);
}

static int cram_check(struct sasl_server *s, const struct password_entry *entry,
                      struct sasl_server_event *ret)
{
    char proof[2 * DIGEST_MD5_SIZE];
    struct str given = str_make(s->response, s->response_n);

    add_cram_challenge(s, &s->out);
    if (s->out.failed)
        return s->out.failed;
    int r = cram_md5_proof(entry->text, buf_str(&s->out), proof);
    if (r < 0)
        return r;
    bool fits = secret_equal(str_from(given, s->user_n + 1), str_make(proof, sizeof(proof)));
    return decided(s, fits && s->known, ret);
}

/* ---- SCRAM-SHA-256 ---- */

/* gs2-header: "n" or "y", then [a=authzid], each with its comma. "p=" would bind to a channel, which
 * is not offered. */
static bool take_gs2_header(struct sasl_server *s, struct str *text, struct str *ret_authzid)
{
    struct str whole = *text, flag, authzid;

    if (!str_cut(text, ',', &flag) || !(str_eq(flag, STR("n")) || str_eq(flag, STR("y"))) ||
        !str_cut(text, ',', &authzid) || !text->p)
        return false;
    s->gs2_header_n = whole.n - text->n;
    if (s->gs2_header_n > sizeof(s->gs2_header))
        return false;
    memcpy(s->gs2_header, whole.p, s->gs2_header_n);
    if (authzid.n > 0 && !scram_take(&authzid, 'a', &authzid))
        return false;
    *ret_authzid = authzid;
    return true;
}

/* gs2-header n=user,r=nonce[,extensions] */
static int scram_first(struct sasl_server *s, struct str text, struct sasl_server_event *ret)
{
    char name[SASL_MAX_USER];
    struct str bare, authzid, user, nonce;
    size_t n;

    if (!take_gs2_header(s, &text, &authzid))
        return malformed(s, ret);
    bare = text;
    if (!scram_take(&text, 'n', &user) || !scram_take(&text, 'r', &nonce) ||
        !scram_nonce_ok(nonce) || scram_read_name(user, name, &n) < 0 ||
        !keep_user(s, str_make(name, n)))
        return malformed(s, ret);
    if (scram_read_name(authzid, name, &n) < 0)
        return malformed(s, ret);
    note_authzid(s, str_make(name, n));

    /* Kept: client-first-message-bare; and the nonce's length, for what follows is ours. */
    buf_add_str(&s->auth_message, bare);
    buf_add_char(&s->auth_message, ',');
    s->client_nonce_n = nonce.n;
    memcpy(s->response, nonce.p, nonce.n);
    return ask(s, SASL_SECRET, STR_NONE, ret);
}

enum { USUAL_SALT = 16 };

/* The salt of a user who has none: the same each time, and not to be told from chance. */
static int make_salt(const uint8_t *salt_key, struct str user, size_t n,
                     struct password_entry *entry)
{
    uint8_t mac[DIGEST_SHA256_SIZE];
    int r = hmac_of(DIGEST_SHA256, str_make(salt_key, DIGEST_SHA256_SIZE), user, mac);

    if (r < 0)
        return r;
    entry->salt_n = (uint8_t)MIN(n, sizeof(mac));
    memcpy(entry->salt, mac, entry->salt_n);
    return 0;
}

/* The keys of a password, into an entry that has salt and iterations. */
static int set_keys(struct password_entry *entry, struct str password)
{
    struct scram_keys keys;
    int r = scram_keys_of(password, str_make(entry->salt, entry->salt_n), entry->iterations, &keys);

    if (r == 0) {
        memcpy(entry->stored, keys.stored, SCRAM_KEY);
        memcpy(entry->server, keys.server, SCRAM_KEY);
    }
    secret_wipe(&keys, sizeof(keys));
    return r;
}

int sasl_entry_derive(struct password_entry *entry, struct str user, const uint8_t *salt_key)
{
    struct password_entry e = { .kind = PASSWORD_SCRAM_SHA_256,
                                .iterations = SCRAM_USUAL_ITERATIONS };

    if (entry->kind != PASSWORD_PLAIN)
        return 0;
    int r = make_salt(salt_key, user, USUAL_SALT, &e);
    if (r == 0)
        r = set_keys(&e, entry->text);
    if (r == 0)
        *entry = e;
    return r;
}

static int keep_secret(struct sasl_server *s, const struct password_entry *entry)
{
    struct str user = str_make(s->user, s->user_n);

    s->entry = *entry;
    s->entry.text = STR_NONE;
    if (entry->kind == PASSWORD_SCRAM_SHA_256)
        return s->known ? 0 : make_salt(s->salt_key, user, entry->salt_n, &s->entry);
    CHECK(entry->text.n <= sizeof(s->password));
    memcpy(s->password, entry->text.p, entry->text.n);
    s->password_n = entry->text.n;
    s->entry.iterations = SCRAM_USUAL_ITERATIONS;
    return make_salt(s->salt_key, user, USUAL_SALT, &s->entry);
}

/* r=nonce,s=salt,i=iterations */
static int scram_challenge(struct sasl_server *s, const struct password_entry *entry,
                           struct sasl_server_event *ret)
{
    int r = keep_secret(s, entry);

    if (r < 0)
        return r;
    buf_add_str(&s->out, STR("r="));
    buf_add(&s->out, s->response, s->client_nonce_n);
    buf_add(&s->out, s->nonce, s->nonce_n);
    buf_add_str(&s->out, STR(",s="));
    base64_add(&s->out, str_make(s->entry.salt, s->entry.salt_n));
    buf_printf(&s->out, ",i=%u", s->entry.iterations);

    buf_add_str(&s->auth_message, buf_str(&s->out));
    buf_add_char(&s->auth_message, ',');
    return challenge(s, STAGE_SECOND, ret);
}

/* An entry that is the password gets its keys here, where a wrong proof costs the same. */
static int derive_keys(struct sasl_server *s)
{
    if (s->entry.kind == PASSWORD_SCRAM_SHA_256)
        return 0;
    return set_keys(&s->entry, str_make(s->password, s->password_n));
}

/* c=base64(gs2-header),r=nonce[,extensions],p=proof */
static bool read_final(const struct sasl_server *s, struct str text, uint8_t proof[SCRAM_KEY],
                       struct str *ret_without_proof)
{
    uint8_t header[sizeof(s->gs2_header)];
    struct str binding, nonce, shown, rest = text;
    size_t n, own = s->client_nonce_n;
    ptrdiff_t at = str_rchr(text, ',');

    if (at < 0 || !scram_take(&rest, 'c', &binding) || !scram_take(&rest, 'r', &nonce))
        return false;
    *ret_without_proof = str_first(text, (size_t)at);
    rest = str_from(text, (size_t)at + 1);
    if (!scram_take(&rest, 'p', &shown) || base64_decode(shown, proof, SCRAM_KEY, &n) < 0 ||
        n != SCRAM_KEY || base64_decode(binding, header, sizeof(header), &n) < 0)
        return false;
    return str_eq(str_make(header, n), str_make(s->gs2_header, s->gs2_header_n)) &&
           nonce.n == own + s->nonce_n && memcmp(nonce.p, s->response, own) == 0 &&
           memcmp(nonce.p + own, s->nonce, s->nonce_n) == 0;
}

static int scram_final(struct sasl_server *s, struct str text, struct sasl_server_event *ret)
{
    uint8_t proof[SCRAM_KEY], signature[SCRAM_KEY];
    struct str without_proof;
    bool fits = false;

    if (!read_final(s, text, proof, &without_proof))
        return malformed(s, ret);
    buf_add_str(&s->auth_message, without_proof);
    if (s->auth_message.failed)
        return s->auth_message.failed == -EMSGSIZE ? malformed(s, ret) : s->auth_message.failed;

    int r = derive_keys(s);
    if (r == 0)
        r = scram_proof_fits(s->entry.stored, buf_str(&s->auth_message), proof, &fits);
    if (r == 0)
        r = scram_signature(s->entry.server, buf_str(&s->auth_message), signature);
    if (r < 0)
        return r;
    if (!fits || !s->known || s->foreign_authzid)
        return decided(s, fits && s->known, ret);
    buf_add_str(&s->out, STR("v="));
    base64_add(&s->out, str_make(signature, sizeof(signature)));
    return challenge(s, STAGE_THIRD, ret);
}

/* ---- all ---- */

struct sasl_server *sasl_server_new(enum sasl_mechanism m, const struct sasl_server_options *opt)
{
    struct sasl_server *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    CHECK(m != SASL_NONE);
    s->mechanism = m;
    if (!sasl_is_clear(m)) {
        CHECK(scram_nonce_ok(opt->nonce));
        memcpy(s->nonce, opt->nonce.p, opt->nonce.n);
        s->nonce_n = opt->nonce.n;
        s->host_n = MIN(opt->host.n, sizeof(s->host));
        if (s->host_n)
            memcpy(s->host, opt->host.p, s->host_n);
        memcpy(s->salt_key, opt->salt_key, sizeof(s->salt_key));
    }
    if (sasl_buf_init(&s->out) < 0 || sasl_buf_init(&s->auth_message) < 0)
        return sasl_server_free(s);
    return s;
}

struct sasl_server *sasl_server_free(struct sasl_server *s)
{
    if (s) {
        sasl_buf_done(&s->out);
        sasl_buf_done(&s->auth_message);
        secret_wipe(s, sizeof(*s));
        free(s);
    }
    return NULL;
}

enum sasl_mechanism sasl_server_mechanism(const struct sasl_server *s)
{
    return s->mechanism;
}

bool sasl_server_takes_initial(const struct sasl_server *s)
{
    return s->mechanism != SASL_CRAM_MD5;
}

int sasl_server_start(struct sasl_server *s, const struct str *initial,
                      struct sasl_server_event *ret)
{
    CHECK(s->stage == STAGE_START);
    s->stage = STAGE_FIRST;
    if (initial)
        return sasl_server_takes_initial(s) ? sasl_server_step(s, *initial, ret)
                                            : malformed(s, ret);
    if (s->mechanism == SASL_LOGIN)
        buf_add_str(&s->out, STR("Username:"));
    else if (s->mechanism == SASL_CRAM_MD5)
        add_cram_challenge(s, &s->out);
    return challenge(s, STAGE_FIRST, ret);
}

int sasl_server_step(struct sasl_server *s, struct str response, struct sasl_server_event *ret)
{
    struct str kept;

    CHECK(s->stage >= STAGE_FIRST && s->stage <= STAGE_THIRD);
    sasl_buf_clear(&s->out);
    if (s->stage == STAGE_THIRD) /* the proof was right; the client may have the last word, empty */
        return response.n == 0 ? decided(s, true, ret) : malformed(s, ret);
    if (response.n > sizeof(s->response))
        return malformed(s, ret);
    if (s->mechanism == SASL_SCRAM_SHA_256)
        return s->stage == STAGE_FIRST ? scram_first(s, response, ret)
                                       : scram_final(s, response, ret);
    if (response.n)
        memcpy(s->response, response.p, response.n);
    s->response_n = response.n;
    kept = str_make(s->response, s->response_n);
    if (s->mechanism == SASL_PLAIN)
        return plain(s, kept, ret);
    if (s->mechanism == SASL_CRAM_MD5)
        return cram_response(s, kept, ret);
    return s->stage == STAGE_FIRST ? login_user(s, kept, ret) : login_password(s, kept, ret);
}

int sasl_server_verified(struct sasl_server *s, bool fits, struct sasl_server_event *ret)
{
    CHECK(s->stage == STAGE_DECIDE && sasl_is_clear(s->mechanism));
    s->known = true; /* whether it is, only the caller knows: "wrong password" covers both */
    return decided(s, fits, ret);
}

bool sasl_entry_serves(const struct password_entry *entry, enum sasl_mechanism m)
{
    if (sasl_is_clear(m) || entry->kind == PASSWORD_PLAIN)
        return true;
    return m == SASL_SCRAM_SHA_256 && entry->kind == PASSWORD_SCRAM_SHA_256;
}

int sasl_server_secret(struct sasl_server *s, const struct password_entry *entry, bool known,
                       struct sasl_server_event *ret)
{
    /* Nobody knows a password for these keys. */
    static const struct password_entry nobody_scram = { .kind = PASSWORD_SCRAM_SHA_256,
                                                        .iterations = SCRAM_USUAL_ITERATIONS,
                                                        .salt_n = 16 };
    static const struct password_entry nobody_plain = { .kind = PASSWORD_PLAIN,
                                                        .text = STR("nobody") };

    CHECK(s->stage == STAGE_DECIDE && !sasl_is_clear(s->mechanism));
    s->known = known && entry && sasl_entry_serves(entry, s->mechanism);
    if (!entry || !sasl_entry_serves(entry, s->mechanism))
        entry = s->mechanism == SASL_CRAM_MD5 ? &nobody_plain : &nobody_scram;
    sasl_buf_clear(&s->out);
    return s->mechanism == SASL_CRAM_MD5 ? cram_check(s, entry, ret)
                                         : scram_challenge(s, entry, ret);
}
