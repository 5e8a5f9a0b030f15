/* sasl_text.c - names of mechanisms, the grammar of SCRAM (RFC 5802 section 7), CRAM-MD5's proof.
 *
 * Layer: proto. See sasl_text.h.
 */
#include "proto/sasl_text.h"

static const char *const names[SASL_MECHANISMS] = {
    [SASL_PLAIN] = "PLAIN",
    [SASL_LOGIN] = "LOGIN",
    [SASL_CRAM_MD5] = "CRAM-MD5",
    [SASL_SCRAM_SHA_256] = "SCRAM-SHA-256",
};

const char *sasl_name(enum sasl_mechanism m)
{
    return names[m];
}

enum sasl_mechanism sasl_find(struct str name)
{
    for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m++)
        if (str_caseeq(name, str_of(names[m])))
            return (enum sasl_mechanism)m;
    return SASL_NONE;
}

bool scram_take(struct str *text, char key, struct str *ret_value)
{
    struct str part;

    if (text->n < 2 || text->p[0] != key || text->p[1] != '=' || !str_cut(text, ',', &part))
        return false;
    *ret_value = str_from(part, 2);
    return true;
}

bool scram_nonce_ok(struct str nonce)
{
    for (size_t i = 0; i < nonce.n; i++)
        if (nonce.p[i] <= 32 || nonce.p[i] > 126 || nonce.p[i] == ',')
            return false;
    return nonce.n > 0 && nonce.n <= SASL_MAX_NONCE;
}

void scram_add_name(struct buf *out, struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == ',')
            buf_add_str(out, STR("=2C"));
        else if (name.p[i] == '=')
            buf_add_str(out, STR("=3D"));
        else
            buf_add_char(out, name.p[i]);
    }
}

int scram_read_name(struct str text, char *dst, size_t *ret_n)
{
    size_t n = 0;

    while (text.n > 0) {
        char c = *text.p;
        size_t used = 1;

        if (c == '=') {
            if (str_casestarts(text, STR("=2C")))
                c = ',';
            else if (!str_casestarts(text, STR("=3D")))
                return -EINVAL;
            used = 3;
        }
        if (n == SASL_MAX_USER)
            return -EINVAL;
        dst[n++] = c;
        text = str_from(text, used);
    }
    *ret_n = n;
    return 0;
}

bool sasl_user_ok(struct str user)
{
    for (size_t i = 0; i < user.n; i++)
        if ((unsigned char)user.p[i] < 32 || user.p[i] == 127)
            return false;
    return user.n > 0 && user.n <= SASL_MAX_USER && str_is_utf8(user);
}

int cram_md5_proof(struct str password, struct str challenge, char ret[2 * DIGEST_MD5_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t mac[DIGEST_MD5_SIZE];
    int r = hmac_of(DIGEST_MD5, password, challenge, mac);

    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(mac); i++) {
        ret[2 * i] = digits[mac[i] >> 4];
        ret[2 * i + 1] = digits[mac[i] & 15];
    }
    return 0;
}

int sasl_buf_init(struct buf *b)
{
    buf_init(b, SASL_MAX_MESSAGE);
    return buf_room(b, SASL_MAX_MESSAGE) ? 0 : -ENOMEM;
}

void sasl_buf_clear(struct buf *b)
{
    secret_wipe(b->data, b->cap);
    buf_clear(b);
}

void sasl_buf_done(struct buf *b)
{
    secret_wipe(b->data, b->cap);
    buf_done(b);
}
