/* sasl_client.c - the client's side of SASL. Layer: proto. Interface: sasl.h.
 *
 * One object is one exchange. `turn` counts the responses that were given.
 */
#include "proto/sasl_text.h"

struct sasl_client {
    enum sasl_mechanism mechanism;
    unsigned turn;
    bool done;
    size_t user_n, password_n, authzid_n, nonce_n;
    char user[SASL_MAX_USER], password[SASL_MAX_PASSWORD], authzid[SASL_MAX_USER];
    char nonce[SASL_MAX_NONCE];
    uint8_t signature[SCRAM_KEY]; /* what the server must show */
    struct buf auth_message;      /* SCRAM: what both sides sign */
    struct buf out;
};

static struct str user_of(const struct sasl_client *c)
{
    return str_make(c->user, c->user_n);
}

static struct str password_of(const struct sasl_client *c)
{
    return str_make(c->password, c->password_n);
}

static struct str authzid_of(const struct sasl_client *c)
{
    return str_make(c->authzid, c->authzid_n);
}

static bool keep(struct str from, char *dst, size_t size, size_t *ret_n)
{
    if (from.n > size || str_chr(from, '\0') >= 0)
        return false;
    if (from.n)
        memcpy(dst, from.p, from.n);
    *ret_n = from.n;
    return true;
}

static bool keep_all(struct sasl_client *c, const struct sasl_credentials *cred, struct str nonce)
{
    bool scram = c->mechanism == SASL_SCRAM_SHA_256;
    bool has_authzid = scram || c->mechanism == SASL_PLAIN;

    if (cred->user.n == 0 || cred->password.n == 0 || (cred->authzid.n && !has_authzid))
        return false;
    if (c->mechanism == SASL_CRAM_MD5 && str_chr(cred->user, '\n') >= 0)
        return false;
    if (scram && !(scram_nonce_ok(nonce) && keep(nonce, c->nonce, sizeof(c->nonce), &c->nonce_n)))
        return false;
    return keep(cred->user, c->user, sizeof(c->user), &c->user_n) &&
           keep(cred->password, c->password, sizeof(c->password), &c->password_n) &&
           keep(cred->authzid, c->authzid, sizeof(c->authzid), &c->authzid_n);
}

int sasl_client_new(enum sasl_mechanism m, const struct sasl_credentials *cred, struct str nonce,
                    struct sasl_client **ret)
{
    struct sasl_client *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->mechanism = m;
    int r = m != SASL_NONE && keep_all(c, cred, nonce) ? 0 : -EINVAL;
    if (r == 0)
        r = sasl_buf_init(&c->out);
    if (r == 0)
        r = sasl_buf_init(&c->auth_message);
    if (r < 0) {
        sasl_client_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

struct sasl_client *sasl_client_free(struct sasl_client *c)
{
    if (c) {
        sasl_buf_done(&c->out);
        sasl_buf_done(&c->auth_message);
        secret_wipe(c, sizeof(*c));
        free(c);
    }
    return NULL;
}

bool sasl_client_done(const struct sasl_client *c)
{
    return c->done;
}

struct str sasl_client_last(const struct sasl_client *c)
{
    return buf_str(&c->out);
}

/* Hands out what stands in `out`. */
static int respond(struct sasl_client *c, struct str *ret)
{
    if (c->out.failed)
        return c->out.failed == -EMSGSIZE ? -EPROTO : c->out.failed;
    c->turn++;
    *ret = buf_str(&c->out);
    return 0;
}

/* ---- PLAIN, LOGIN, CRAM-MD5 ---- */

static int plain(struct sasl_client *c, struct str challenge, struct str *ret)
{
    if (c->turn > 0)
        return -EPROTO;
    buf_add_str(&c->out, authzid_of(c));
    buf_add_char(&c->out, '\0');
    buf_add_str(&c->out, user_of(c));
    buf_add_char(&c->out, '\0');
    buf_add_str(&c->out, password_of(c));
    c->done = true;
    return respond(c, ret);
}

/* The prompts are for people: servers word them as they like. */
static int login(struct sasl_client *c, struct str challenge, struct str *ret)
{
    if (c->turn > 1)
        return -EPROTO;
    buf_add_str(&c->out, c->turn == 0 ? user_of(c) : password_of(c));
    c->done = c->turn == 1;
    return respond(c, ret);
}

static int cram_md5(struct sasl_client *c, struct str challenge, struct str *ret)
{
    char proof[2 * DIGEST_MD5_SIZE];

    if (c->turn > 0 || challenge.n == 0)
        return -EPROTO;
    int r = cram_md5_proof(password_of(c), challenge, proof);
    if (r < 0)
        return r;
    buf_add_str(&c->out, user_of(c));
    buf_add_char(&c->out, ' ');
    buf_add(&c->out, proof, sizeof(proof));
    c->done = true;
    return respond(c, ret);
}

/* ---- SCRAM-SHA-256 ---- */

/* "n,a=authzid,": no channel binding. */
static void add_gs2_header(struct sasl_client *c, struct buf *out)
{
    buf_add_str(out, STR("n,"));
    if (c->authzid_n) {
        buf_add_str(out, STR("a="));
        scram_add_name(out, authzid_of(c));
    }
    buf_add_char(out, ',');
}

static void add_first_bare(struct sasl_client *c, struct buf *out)
{
    buf_add_str(out, STR("n="));
    scram_add_name(out, user_of(c));
    buf_add_str(out, STR(",r="));
    buf_add_str(out, str_make(c->nonce, c->nonce_n));
}

static int scram_first(struct sasl_client *c, struct str challenge, struct str *ret)
{
    if (challenge.n > 0)
        return -EPROTO;
    add_gs2_header(c, &c->out);
    add_first_bare(c, &c->out);
    return respond(c, ret);
}

struct server_first {
    struct str nonce;
    uint8_t salt[256];
    size_t salt_n;
    uint64_t iterations;
};

/* r=nonce,s=salt,i=iterations; then extensions, which mean nothing to us. A mandatory one ("m=")
 * would stand in front. */
static bool read_server_first(const struct sasl_client *c, struct str text,
                              struct server_first *ret)
{
    struct str salt, iterations, nonce = str_make(c->nonce, c->nonce_n);

    return scram_take(&text, 'r', &ret->nonce) && scram_take(&text, 's', &salt) &&
           scram_take(&text, 'i', &iterations) && str_starts(ret->nonce, nonce) &&
           ret->nonce.n > nonce.n &&
           base64_decode(salt, ret->salt, sizeof(ret->salt), &ret->salt_n) == 0 &&
           ret->salt_n > 0 && str_to_u64(iterations, &ret->iterations) == 0 &&
           ret->iterations >= SCRAM_MIN_ITERATIONS && ret->iterations <= SCRAM_MAX_ITERATIONS;
}

/* client-final-message-without-proof into out, AuthMessage into auth_message. */
static int add_final_without_proof(struct sasl_client *c, struct str challenge, struct str nonce)
{
    struct buf header;

    buf_init(&header, SASL_MAX_MESSAGE);
    add_gs2_header(c, &header);
    buf_add_str(&c->out, STR("c="));
    base64_add(&c->out, buf_str(&header));
    buf_add_str(&c->out, STR(",r="));
    buf_add_str(&c->out, nonce);

    add_first_bare(c, &c->auth_message);
    buf_add_char(&c->auth_message, ',');
    buf_add_str(&c->auth_message, challenge);
    buf_add_char(&c->auth_message, ',');
    buf_add_str(&c->auth_message, buf_str(&c->out));
    int r = header.failed ? header.failed : c->out.failed ? c->out.failed : c->auth_message.failed;
    buf_done(&header);
    return r == -EMSGSIZE ? -EPROTO : r;
}

static int scram_final(struct sasl_client *c, struct str challenge, struct str *ret)
{
    struct server_first first;
    struct scram_keys keys;
    uint8_t proof[SCRAM_KEY];

    if (!read_server_first(c, challenge, &first))
        return -EPROTO;
    int r = add_final_without_proof(c, challenge, first.nonce);
    if (r < 0)
        return r;
    r = scram_keys_of(password_of(c), str_make(first.salt, first.salt_n),
                      (uint32_t)first.iterations, &keys);
    if (r < 0)
        return r;
    r = scram_proof(&keys, buf_str(&c->auth_message), proof);
    if (r == 0)
        r = scram_signature(keys.server, buf_str(&c->auth_message), c->signature);
    secret_wipe(&keys, sizeof(keys));
    if (r < 0)
        return r;
    buf_add_str(&c->out, STR(",p="));
    base64_add(&c->out, str_make(proof, sizeof(proof)));
    return respond(c, ret);
}

static int scram_check_server(struct sasl_client *c, struct str challenge, struct str *ret)
{
    uint8_t signature[SCRAM_KEY];
    struct str value;
    size_t n;

    /* "e=...": the server says in SASL what it will say in SMTP; let it. */
    if (str_starts(challenge, STR("e=")))
        return respond(c, ret);
    if (!scram_take(&challenge, 'v', &value))
        return -EPROTO;
    if (base64_decode(value, signature, sizeof(signature), &n) < 0 ||
        !secret_equal(str_make(signature, n), str_make(c->signature, sizeof(c->signature))))
        return -EKEYREJECTED;
    c->done = true;
    return respond(c, ret);
}

static int scram(struct sasl_client *c, struct str challenge, struct str *ret)
{
    switch (c->turn) {
    case 0: return scram_first(c, challenge, ret);
    case 1: return scram_final(c, challenge, ret);
    case 2: return scram_check_server(c, challenge, ret);
    default: return -EPROTO;
    }
}

/* ---- all ---- */

bool sasl_client_initial(struct sasl_client *c, struct str *ret)
{
    if (c->turn > 0 || (c->mechanism != SASL_PLAIN && c->mechanism != SASL_SCRAM_SHA_256))
        return false;
    return sasl_client_step(c, STR(""), ret) == 0;
}

int sasl_client_step(struct sasl_client *c, struct str challenge, struct str *ret)
{
    sasl_buf_clear(&c->out);
    if (challenge.n > SASL_MAX_MESSAGE)
        return -EPROTO;
    switch (c->mechanism) {
    case SASL_PLAIN: return plain(c, challenge, ret);
    case SASL_LOGIN: return login(c, challenge, ret);
    case SASL_CRAM_MD5: return cram_md5(c, challenge, ret);
    case SASL_SCRAM_SHA_256: return scram(c, challenge, ret);
    case SASL_NONE: break;
    }
    return -EPROTO;
}
