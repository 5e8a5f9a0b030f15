/* SASL, both roles, against a peer that says anything.
 *
 * Input: a byte of settings (two bits mechanism, then: the client's role; an initial response; the
 * user is known; the password fits), then the peer's messages, parted by 0x1e. A server may not let
 * anybody in who proved nothing, and a client may not be content before its turn.
 */
#include "proto/sasl.h"

enum { MESSAGE_END = 0x1e };

static const uint8_t salt_key[DIGEST_SHA256_SIZE] = { 7 };

static void check_event(const struct sasl_server_event *ev)
{
    CHECK(ev->message.n <= SASL_MAX_MESSAGE && ev->user.n <= SASL_MAX_USER);
    if (ev->type == SASL_VERIFY || ev->type == SASL_SECRET || ev->type == SASL_OK) {
        CHECK(ev->user.n > 0 && str_is_utf8(ev->user));
        for (size_t i = 0; i < ev->user.n; i++)
            CHECK((unsigned char)ev->user.p[i] >= 32 && ev->user.p[i] != 127);
    }
    if (ev->type == SASL_VERIFY)
        CHECK(ev->password.n > 0 && ev->password.n <= SASL_MAX_PASSWORD &&
              str_chr(ev->password, '\0') < 0);
    CHECK((ev->type == SASL_FAILED) == (ev->why != NULL));
}

static void run_server(unsigned settings, enum sasl_mechanism m, struct str script)
{
    static const struct password_entry entry = { .kind = PASSWORD_SCRAM_SHA_256,
                                                 .iterations = 4096,
                                                 .salt_n = 4 };
    struct sasl_server_options opt = { STR("mx.example"), STR("nonce"), salt_key };
    struct sasl_server *s = sasl_server_new(m, &opt);
    struct sasl_server_event ev;
    struct str message = STR_NONE;
    bool fits = settings & 32;

    CHECK(s);
    bool initial = settings & 8 && str_cut(&script, MESSAGE_END, &message);
    CHECK(sasl_server_start(s, initial ? &message : NULL, &ev) == 0);
    for (;;) {
        check_event(&ev);
        if (ev.type == SASL_VERIFY) {
            CHECK(sasl_is_clear(m) && sasl_server_verified(s, fits, &ev) == 0);
            CHECK(ev.type == SASL_FAILED || (ev.type == SASL_OK && fits));
        } else if (ev.type == SASL_SECRET) {
            CHECK(!sasl_is_clear(m) && sasl_server_secret(s, &entry, settings & 16, &ev) == 0);
            CHECK(m == SASL_SCRAM_SHA_256 ? ev.type == SASL_CHALLENGE : ev.type == SASL_FAILED);
        } else if (ev.type == SASL_CHALLENGE && str_cut(&script, MESSAGE_END, &message)) {
            CHECK(sasl_server_step(s, message, &ev) == 0);
        } else {
            break;
        }
    }
    CHECK(ev.type != SASL_OK || sasl_is_clear(m)); /* nobody has the keys that are all zero */
    sasl_server_free(s);
}

static void run_client(enum sasl_mechanism m, struct str script)
{
    struct sasl_credentials cred = { STR("u=s,r"), STR("pencil"), STR_NONE };
    struct sasl_client *c = NULL;
    struct str message, response;
    unsigned turns = 0;
    int r = 0;

    CHECK(sasl_client_new(m, &cred, STR("n"), &c) == 0);
    if (sasl_client_initial(c, &response))
        turns++;
    while (r == 0 && str_cut(&script, MESSAGE_END, &message)) {
        r = sasl_client_step(c, message, &response);
        CHECK(r == 0 || r == -EPROTO || r == -EKEYREJECTED);
        if (r == 0)
            CHECK(response.n <= SASL_MAX_MESSAGE && ++turns <= 3);
    }
    CHECK(!sasl_client_done(c) || m != SASL_SCRAM_SHA_256);
    sasl_client_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 16384)
        return 0;
    struct str script = str_make(data + 1, size - 1);
    enum sasl_mechanism m = (enum sasl_mechanism)(SASL_PLAIN + (data[0] & 3));

    if (data[0] & 4)
        run_client(m, script);
    else
        run_server(data[0], m, script);
    return 0;
}
