/* password.c - entries of a password file. Layer: crypto. Interface: password.h. */
#include "crypto/password.h"

#include <crypt.h>

#include "base/base64.h"

typedef int parse_fn(struct str text, struct password_entry *e, const char **ret_why);

static int refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EINVAL;
}

static int parse_plain(struct str text, struct password_entry *e, const char **ret_why)
{
    if (text.n == 0 || text.n > PASSWORD_MAX)
        return refuse(ret_why, "the password is empty or longer than 1024 octets");
    e->kind = PASSWORD_PLAIN;
    e->text = text;
    return 0;
}

static bool decode_key(struct str text, uint8_t key[SCRAM_KEY])
{
    size_t n;

    return base64_decode(text, key, SCRAM_KEY, &n) == 0 && n == SCRAM_KEY;
}

/* iterations,salt,StoredKey,ServerKey, as Dovecot writes it. */
static int parse_scram(struct str text, struct password_entry *e, const char **ret_why)
{
    struct str part[4] = { STR_NONE, STR_NONE, STR_NONE, STR_NONE }, extra;
    uint64_t iterations;
    size_t salt_n;

    for (size_t i = 0; i < ARRAY_LEN(part); i++)
        if (!str_cut(&text, ',', &part[i]))
            return refuse(ret_why, "not iterations,salt,StoredKey,ServerKey");
    if (str_cut(&text, ',', &extra))
        return refuse(ret_why, "more than iterations,salt,StoredKey,ServerKey");
    if (str_to_u64(part[0], &iterations) < 0 || iterations < SCRAM_MIN_ITERATIONS ||
        iterations > SCRAM_MAX_ITERATIONS)
        return refuse(ret_why, "iterations must be 4096 to 200000");
    if (base64_decode(part[1], e->salt, sizeof(e->salt), &salt_n) < 0 || salt_n == 0)
        return refuse(ret_why, "the salt must be base64 of 1 to 64 octets");
    if (!decode_key(part[2], e->stored) || !decode_key(part[3], e->server))
        return refuse(ret_why, "the keys must be base64 of 32 octets");
    e->kind = PASSWORD_SCRAM_SHA_256;
    e->iterations = (uint32_t)iterations;
    e->salt_n = (uint8_t)salt_n;
    return 0;
}

/* $5$[rounds=N$]salt$hash */
static const char *sha_crypt_wrong(struct str text)
{
    struct str salt, rest = str_from(text, 3);
    uint64_t rounds;

    if (str_starts(rest, STR("rounds="))) {
        struct str number;

        rest = str_from(rest, 7);
        if (!str_cut(&rest, '$', &number) || str_to_u64(number, &rounds) < 0 ||
            rounds > PASSWORD_MAX_ROUNDS)
            return "more than 200000 rounds";
    }
    if (!str_cut(&rest, '$', &salt) || rest.n != (text.p[1] == '5' ? 43 : 86))
        return "not a whole hash of crypt(3)";
    return NULL;
}

/* $2y$NN$ and 53 characters of salt and hash */
static const char *bcrypt_wrong(struct str text)
{
    uint64_t cost;

    if (text.n != 60 || text.p[6] != '$' || str_to_u64(str_make(text.p + 4, 2), &cost) < 0)
        return "not a whole hash of crypt(3)";
    return cost > PASSWORD_MAX_BCRYPT ? "a cost of bcrypt above 12" : NULL;
}

/* $y$jNr$salt$hash: libxcrypt makes j75, j85 and j7T (little memory) up to jFT; j9T by default. */
static const char *yescrypt_wrong(struct str text)
{
    struct str params = str_make(text.p + 3, 3), salt, rest = str_from(text, 7);

    if (text.n < 7 || text.p[6] != '$' || params.p[0] != 'j' ||
        (params.p[2] != 'T' && params.p[2] != '5'))
        return "parameters of yescrypt that are not used here";
    if (params.p[1] < '7' || params.p[1] > 'B')
        return "a cost of yescrypt above four times the default";
    return str_cut(&rest, '$', &salt) && rest.n == 43 ? NULL : "not a whole hash of crypt(3)";
}

static const struct method {
    struct str prefix;
    const char *(*wrong)(struct str text);
} methods[] = {
    { STR("$5$"), sha_crypt_wrong }, { STR("$6$"), sha_crypt_wrong },
    { STR("$2a$"), bcrypt_wrong },   { STR("$2b$"), bcrypt_wrong },
    { STR("$2y$"), bcrypt_wrong },   { STR("$y$"), yescrypt_wrong },
};

static const struct method *find_method(struct str text)
{
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (str_starts(text, methods[i].prefix))
            return &methods[i];
    return NULL;
}

static int parse_crypt(struct str text, struct password_entry *e, const char **ret_why)
{
    const struct method *method = find_method(text);

    if (!method)
        return refuse(ret_why, "not SHA-256, SHA-512, bcrypt or yescrypt of crypt(3)");
    if (text.n >= CRYPT_OUTPUT_SIZE || str_chr(text, '\0') >= 0)
        return refuse(ret_why, "not a hash of crypt(3)");
    const char *wrong = method->wrong(text);
    if (wrong)
        return refuse(ret_why, wrong);
    e->kind = PASSWORD_CRYPT;
    e->text = text;
    return 0;
}

static const struct scheme {
    struct str name;
    struct str begins; /* what crypt(3)'s text must begin with */
    parse_fn *parse;
} schemes[] = {
    { STR("{SCRAM-SHA-256}"), STR(""), parse_scram },
    { STR("{SHA256-CRYPT}"), STR("$5$"), parse_crypt },
    { STR("{SHA512-CRYPT}"), STR("$6$"), parse_crypt },
    { STR("{BLF-CRYPT}"), STR("$2"), parse_crypt },
    { STR("{CRYPT}"), STR("$"), parse_crypt },
    { STR("{PLAIN}"), STR(""), parse_plain },
};

static const struct scheme *find_scheme(struct str entry)
{
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (str_casestarts(entry, schemes[i].name))
            return &schemes[i];
    return NULL;
}

bool password_is_entry(struct str text)
{
    return find_scheme(text) || find_method(text);
}

int password_parse(struct str entry, struct password_entry *ret, const char **ret_why)
{
    const struct scheme *scheme = find_scheme(entry);
    struct password_entry e = { 0 };
    int r;

    if (entry.n > PASSWORD_MAX_ENTRY)
        return refuse(ret_why, "longer than 2048 octets");
    if (scheme) {
        struct str text = str_from(entry, scheme->name.n);
        r = str_starts(text, scheme->begins)
                ? scheme->parse(text, &e, ret_why)
                : refuse(ret_why, "the hash is not of the scheme that stands before it");
    } else if (find_method(entry)) {
        r = parse_crypt(entry, &e, ret_why);
    } else {
        r = refuse(ret_why, "no scheme that is known: write {SCRAM-SHA-256}, {SHA512-CRYPT}, "
                            "{SHA256-CRYPT}, {BLF-CRYPT}, {CRYPT} or {PLAIN}");
    }
    if (r == 0)
        *ret = e;
    secret_wipe(&e, sizeof(e));
    return r;
}

/* ---- checking ---- */

static int check_scram(const struct password_entry *e, struct str password, bool *ret)
{
    struct scram_keys keys;
    int r = scram_keys_of(password, str_make(e->salt, e->salt_n), e->iterations, &keys);

    if (r == 0)
        *ret = secret_equal(str_make(keys.stored, SCRAM_KEY), str_make(e->stored, SCRAM_KEY));
    secret_wipe(&keys, sizeof(keys));
    return r;
}

static int check_crypt(const struct password_entry *e, struct str password, bool *ret)
{
    char phrase[PASSWORD_MAX + 1], setting[CRYPT_OUTPUT_SIZE];
    struct crypt_data *data = calloc(1, sizeof(*data)); /* 32 KiB: not for the stack */
    int r = -ENOTSUP;

    if (!data)
        return -ENOMEM;
    CHECK(str_copy(password, phrase, sizeof(phrase)) &&
          str_copy(e->text, setting, sizeof(setting)));
    const char *hash = crypt_rn(phrase, setting, data, sizeof(*data));
    if (hash) {
        *ret = secret_equal(str_of(hash), e->text);
        r = 0;
    } else if (errno == ENOMEM) {
        r = -ENOMEM;
    } else if (password.n > CRYPT_MAX_PASSPHRASE_SIZE) {
        *ret = false;
        r = 0;
    }
    secret_wipe(phrase, sizeof(phrase));
    secret_wipe(data, sizeof(*data));
    free(data);
    return r;
}

int password_check(const struct password_entry *e, struct str password, bool *ret)
{
    /* crypt(3) would stop at a NUL, and the rest would not matter. */
    if (password.n > PASSWORD_MAX || str_chr(password, '\0') >= 0) {
        *ret = false;
        return 0;
    }
    switch (e->kind) {
    case PASSWORD_PLAIN: {
        /* Digests first: the time tells nothing of how long the real one is. */
        uint8_t a[DIGEST_MAX], b[DIGEST_MAX];
        int r = digest_of(DIGEST_SHA256, e->text, a);
        if (r == 0)
            r = digest_of(DIGEST_SHA256, password, b);
        if (r == 0)
            *ret = secret_equal(str_make(a, DIGEST_SHA256_SIZE), str_make(b, DIGEST_SHA256_SIZE));
        return r;
    }
    case PASSWORD_SCRAM_SHA_256: return check_scram(e, password, ret);
    case PASSWORD_CRYPT: return check_crypt(e, password, ret);
    }
    return -EINVAL;
}

int password_make_scram(struct str password, struct str salt, uint32_t iterations, struct buf *out)
{
    struct scram_keys keys;

    if (salt.n == 0 || salt.n > SCRAM_MAX_SALT || password.n == 0 || password.n > PASSWORD_MAX)
        return -EINVAL;
    int r = scram_keys_of(password, salt, iterations, &keys);
    if (r < 0)
        return r;
    buf_printf(out, "{SCRAM-SHA-256}%u,", iterations);
    base64_add(out, salt);
    buf_add_char(out, ',');
    base64_add(out, str_make(keys.stored, SCRAM_KEY));
    buf_add_char(out, ',');
    base64_add(out, str_make(keys.server, SCRAM_KEY));
    secret_wipe(&keys, sizeof(keys));
    return out->failed;
}
