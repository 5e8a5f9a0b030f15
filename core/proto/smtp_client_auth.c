/* smtp_client_auth.c - AUTH as a client (RFC 4954): which mechanism, and SASL's messages as lines.
 * Pure functions on an exchange, see smtp_client_internal.h.
 *
 * Layer: proto.
 */
#include "base/base64.h"
#include "proto/smtp_client_internal.h"

enum { MAX_COMMAND = 512 }; /* with CRLF (RFC 4954 section 4: else no initial response) */

enum sasl_mechanism smtp_client_pick(const struct smtp_client_options *opt, uint32_t offered,
                                     bool tls)
{
    static const enum sasl_mechanism best_first[] = { SASL_SCRAM_SHA_256, SASL_CRAM_MD5, SASL_PLAIN,
                                                      SASL_LOGIN };

    if (opt->mechanisms)
        offered &= opt->mechanisms;
    for (size_t i = 0; i < ARRAY_LEN(best_first); i++) {
        enum sasl_mechanism m = best_first[i];
        if ((offered & SASL_BIT(m)) && (tls || opt->auth_in_clear || !sasl_is_clear(m)))
            return m;
    }
    return SASL_NONE;
}

/* The command with the initial response is short enough. In SCRAM a ',' or '=' of the name takes
 * three octets. */
static bool fits_command(const struct smtp_client_options *opt, enum sasl_mechanism m)
{
    size_t n = m == SASL_PLAIN ? opt->user.n + opt->password.n + 2
                               : 3 * opt->user.n + opt->nonce.n + sizeof("n,,n=,r=");

    return sizeof("AUTH SCRAM-SHA-256 \r\n") + BASE64_TEXT(n) <= MAX_COMMAND;
}

int smtp_client_auth_begin(const struct smtp_client_options *opt, enum sasl_mechanism m,
                           struct buf *out, struct sasl_client **ret)
{
    const struct sasl_credentials cred = { .user = opt->user, .password = opt->password };
    struct str initial;
    int r = sasl_client_new(m, &cred, opt->nonce, ret);

    if (r < 0)
        return r;
    buf_printf(out, "AUTH %s", sasl_name(m));
    if (fits_command(opt, m) && sasl_client_initial(*ret, &initial)) {
        buf_add_char(out, ' ');
        base64_add(out, initial);
    }
    buf_add_str(out, STR("\r\n"));
    return out->failed;
}

int smtp_client_auth_step(struct sasl_client *sasl, struct str challenge, struct buf *out)
{
    char bytes[SASL_MAX_MESSAGE];
    struct str response;
    size_t n;
    int r = base64_decode(str_trim(challenge), bytes, sizeof(bytes), &n);

    if (r < 0)
        return -EPROTO; /* no base64, or longer than any mechanism's */
    r = sasl_client_step(sasl, str_make(bytes, n), &response);
    if (r < 0)
        return r;
    base64_add(out, response);
    return buf_add_str(out, STR("\r\n"));
}

struct str smtp_client_auth_text(const struct sasl_client *sasl, struct str text)
{
    enum { TELLING = 6 }; /* octets of a response; the first 8 characters of it in base64 */
    char begins[BASE64_TEXT(TELLING)];
    struct str last = str_first(sasl_client_last(sasl), TELLING);
    size_t n = base64_encode(last, begins);
    bool quoted = n > 0 && str_find(text, str_make(begins, n)) >= 0;

    secret_wipe(begins, sizeof(begins));
    return quoted ? STR("(not quoted: the host repeats what it was told in confidence)") : text;
}
