/* SASL: the examples of the RFCs, both roles against each other, and what each side refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base64.h"
#include "proto/sasl.h"

static const uint8_t salt_key[DIGEST_SHA256_SIZE] = { 1, 2, 3 };

/* RFC 7677 section 3 */
#define CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SALT         "W22ZaJ0SNY7soEsUEjb6gQ=="
#define CLIENT_FIRST "n,,n=user,r=" CLIENT_NONCE
#define SERVER_FIRST "r=" CLIENT_NONCE SERVER_NONCE ",s=" SALT ",i=4096"
#define CLIENT_FINAL                                                                               \
    "c=biws,r=" CLIENT_NONCE SERVER_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SERVER_FINAL "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
#define PENCIL                                                                                     \
    "{SCRAM-SHA-256}4096," SALT ",WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"                   \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

#define ASSERT_STR(is, expected)                                                                   \
    do {                                                                                           \
        struct str is_ = (is), expected_ = (expected);                                             \
        if (!str_eq(is_, expected_))                                                               \
            fail_msg("%s:%d: \"" STR_FMT "\", expected \"" STR_FMT "\"", __FILE__, __LINE__,       \
                     STR_ARG(is_), STR_ARG(expected_));                                            \
    } while (0)

static struct sasl_client *client(enum sasl_mechanism m, const char *user, const char *password,
                                  const char *authzid)
{
    struct sasl_credentials cred = { str_of(user), str_of(password), str_of(authzid) };
    struct sasl_client *c = NULL;

    assert_int_equal(sasl_client_new(m, &cred, STR(CLIENT_NONCE), &c), 0);
    return c;
}

static struct sasl_server *server(enum sasl_mechanism m)
{
    struct sasl_server *s = sasl_server_new(
        m, &(struct sasl_server_options){ STR("mx.example"), STR(SERVER_NONCE), salt_key });

    assert_non_null(s);
    return s;
}

static struct password_entry entry_of(struct str text)
{
    struct password_entry e;
    const char *why;

    assert_int_equal(password_parse(text, &e, &why), 0);
    return e;
}

static void test_names(void **state)
{
    (void)state;
    for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m++)
        assert_int_equal(sasl_find(str_of(sasl_name((enum sasl_mechanism)m))), m);
    assert_int_equal(sasl_find(STR("scram-sha-256")), SASL_SCRAM_SHA_256);
    assert_int_equal(sasl_find(STR("GSSAPI")), SASL_NONE);
    assert_int_equal(sasl_find(STR("")), SASL_NONE);
}

/* ---- client ---- */

static void test_client_plain(void **state)
{
    struct sasl_client *c = client(SASL_PLAIN, "tim", "tanstaaftanstaaf", "");
    struct str out;

    (void)state;
    assert_true(sasl_client_initial(c, &out));
    ASSERT_STR(out, STR("\0tim\0tanstaaftanstaaf"));
    assert_true(sasl_client_done(c));
    assert_int_equal(sasl_client_step(c, STR("more?"), &out), -EPROTO);
    c = sasl_client_free(c);

    c = client(SASL_PLAIN, "Kurt", "xipj3plmq", "Ursel");
    assert_int_equal(sasl_client_step(c, STR(""), &out), 0);
    ASSERT_STR(out, STR("Ursel\0Kurt\0xipj3plmq"));
    assert_false(sasl_client_initial(c, &out));
    sasl_client_free(c);
}

static void test_client_login(void **state)
{
    struct sasl_client *c = client(SASL_LOGIN, "user", "pencil", "");
    struct str out;

    (void)state;
    assert_false(sasl_client_initial(c, &out));
    assert_int_equal(sasl_client_step(c, STR("Username:"), &out), 0);
    ASSERT_STR(out, STR("user"));
    assert_false(sasl_client_done(c));
    assert_int_equal(sasl_client_step(c, STR("Password:"), &out), 0);
    ASSERT_STR(out, STR("pencil"));
    assert_true(sasl_client_done(c));
    assert_int_equal(sasl_client_step(c, STR("Shoe size:"), &out), -EPROTO);
    sasl_client_free(c);
}

/* RFC 2195 section 2 */
static void test_client_cram_md5(void **state)
{
    struct sasl_client *c = client(SASL_CRAM_MD5, "tim", "tanstaaftanstaaf", "");
    struct str out;

    (void)state;
    assert_false(sasl_client_initial(c, &out));
    assert_int_equal(sasl_client_step(c, STR("<1896.697170952@postoffice.reston.mci.net>"), &out),
                     0);
    ASSERT_STR(out, STR("tim b913a602c7eda7a495b4e6e7334d3890"));
    assert_true(sasl_client_done(c));
    sasl_client_free(c);
}

static void test_client_scram(void **state)
{
    struct sasl_client *c = client(SASL_SCRAM_SHA_256, "user", "pencil", "");
    struct str out;

    (void)state;
    assert_true(sasl_client_initial(c, &out));
    ASSERT_STR(out, STR(CLIENT_FIRST));
    assert_int_equal(sasl_client_step(c, STR(SERVER_FIRST), &out), 0);
    ASSERT_STR(out, STR(CLIENT_FINAL));
    assert_false(sasl_client_done(c));
    assert_int_equal(sasl_client_step(c, STR(SERVER_FINAL), &out), 0);
    ASSERT_STR(out, STR(""));
    assert_true(sasl_client_done(c));
    sasl_client_free(c);
}

/* A server that does not know the password cannot sign. */
static void test_client_scram_rejects_a_false_server(void **state)
{
    static const struct {
        struct str final;
        int result;
    } finals[] = {
        { STR("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), -EKEYREJECTED },
        { STR("v="), -EKEYREJECTED },
        { STR("v=6rri"), -EKEYREJECTED },
        { STR(""), -EPROTO },
        { STR("x=y"), -EPROTO },
        { STR("e=invalid-proof"), 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(finals); i++) {
        struct sasl_client *c = client(SASL_SCRAM_SHA_256, "user", "pencil", "");
        struct str out;

        assert_true(sasl_client_initial(c, &out));
        assert_int_equal(sasl_client_step(c, STR(SERVER_FIRST), &out), 0);
        assert_int_equal(sasl_client_step(c, finals[i].final, &out), finals[i].result);
        assert_false(sasl_client_done(c));
        sasl_client_free(c);
    }
}

static void test_client_scram_rejects_bad_challenges(void **state)
{
    static const struct str firsts[] = {
        STR(""),
        STR("r=" CLIENT_NONCE ",s=" SALT ",i=4096"),                /* nothing of its own */
        STR("r=other" SERVER_NONCE ",s=" SALT ",i=4096"),           /* not ours in front */
        STR("r=" CLIENT_NONCE SERVER_NONCE ",s=" SALT ",i=4095"),   /* too easy */
        STR("r=" CLIENT_NONCE SERVER_NONCE ",s=" SALT ",i=200001"), /* too much work */
        STR("r=" CLIENT_NONCE SERVER_NONCE ",s=" SALT ",i=-1"),
        STR("r=" CLIENT_NONCE SERVER_NONCE ",s=" SALT),
        STR("r=" CLIENT_NONCE SERVER_NONCE ",s=,i=4096"),
        STR("r=" CLIENT_NONCE SERVER_NONCE ",s=!,i=4096"),
        STR("m=ext,r=" CLIENT_NONCE SERVER_NONCE ",s=" SALT ",i=4096"),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        struct sasl_client *c = client(SASL_SCRAM_SHA_256, "user", "pencil", "");
        struct str out;

        assert_true(sasl_client_initial(c, &out));
        assert_int_equal(sasl_client_step(c, firsts[i], &out), -EPROTO);
        sasl_client_free(c);
    }
}

static void test_client_refuses_credentials(void **state)
{
    static char longest[SASL_MAX_PASSWORD + 1];
    const struct {
        enum sasl_mechanism m;
        struct sasl_credentials cred;
        struct str nonce;
    } bad[] = {
        { SASL_NONE, { STR("u"), STR("p"), STR_NONE }, STR("n") },
        { SASL_PLAIN, { STR(""), STR("p"), STR_NONE }, STR("n") },
        { SASL_PLAIN, { STR("u"), STR(""), STR_NONE }, STR("n") },
        { SASL_PLAIN, { STR("u\0x"), STR("p"), STR_NONE }, STR("n") },
        { SASL_PLAIN, { STR("u"), str_make(longest, sizeof(longest)), STR_NONE }, STR("n") },
        { SASL_PLAIN, { str_make(longest, SASL_MAX_USER + 1), STR("p"), STR_NONE }, STR("n") },
        { SASL_LOGIN, { STR("u"), STR("p"), STR("other") }, STR("n") },
        { SASL_SCRAM_SHA_256, { STR("u"), STR("p"), STR_NONE }, STR("") },
        { SASL_SCRAM_SHA_256, { STR("u"), STR("p"), STR_NONE }, STR("a,b") },
    };
    struct sasl_client *c = NULL;

    (void)state;
    memset(longest, 'x', sizeof(longest));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(sasl_client_new(bad[i].m, &bad[i].cred, bad[i].nonce, &c), -EINVAL);
    assert_null(c);
}

/* ---- server ---- */

static void test_server_plain(void **state)
{
    struct sasl_server *s = server(SASL_PLAIN);
    struct sasl_server_event ev;

    (void)state;
    assert_int_equal(sasl_server_start(s, NULL, &ev), 0);
    assert_int_equal(ev.type, SASL_CHALLENGE);
    ASSERT_STR(ev.message, STR(""));
    assert_int_equal(sasl_server_step(s, STR("\0tim\0tanstaaftanstaaf"), &ev), 0);
    assert_int_equal(ev.type, SASL_VERIFY);
    ASSERT_STR(ev.user, STR("tim"));
    ASSERT_STR(ev.password, STR("tanstaaftanstaaf"));
    assert_int_equal(sasl_server_verified(s, true, &ev), 0);
    assert_int_equal(ev.type, SASL_OK);
    ASSERT_STR(ev.user, STR("tim"));
    sasl_server_free(s);
}

static void test_server_plain_responses(void **state)
{
    static const struct {
        struct str response;
        enum sasl_event first, decided; /* when the password fits */
    } cases[] = {
        { STR("tim\0tim\0pw"), SASL_VERIFY, SASL_OK },
        { STR("root\0tim\0pw"), SASL_VERIFY, SASL_FAILED },
        { STR(""), SASL_FAILED, 0 },
        { STR("tim"), SASL_FAILED, 0 },
        { STR("\0tim"), SASL_FAILED, 0 },
        { STR("\0tim\0"), SASL_FAILED, 0 },
        { STR("\0\0pw"), SASL_FAILED, 0 },
        { STR("\0tim\0pw\0"), SASL_FAILED, 0 },
        { STR("\0t\nm\0pw"), SASL_FAILED, 0 },
        { STR("\0t\xffm\0pw"), SASL_FAILED, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sasl_server *s = server(SASL_PLAIN);
        struct sasl_server_event ev;

        assert_int_equal(sasl_server_start(s, &cases[i].response, &ev), 0);
        assert_int_equal(ev.type, cases[i].first);
        if (ev.type == SASL_VERIFY) {
            assert_int_equal(sasl_server_verified(s, true, &ev), 0);
            assert_int_equal(ev.type, cases[i].decided);
        }
        sasl_server_free(s);
    }
}

static void test_server_login(void **state)
{
    static const struct str user = STR("user");
    struct sasl_server_event ev;

    (void)state;
    for (int initial = 0; initial < 2; initial++) {
        struct sasl_server *s = server(SASL_LOGIN);

        assert_int_equal(sasl_server_start(s, initial ? &user : NULL, &ev), 0);
        if (!initial) {
            assert_int_equal(ev.type, SASL_CHALLENGE);
            ASSERT_STR(ev.message, STR("Username:"));
            assert_int_equal(sasl_server_step(s, user, &ev), 0);
        }
        assert_int_equal(ev.type, SASL_CHALLENGE);
        ASSERT_STR(ev.message, STR("Password:"));
        assert_int_equal(sasl_server_step(s, STR("pencil"), &ev), 0);
        assert_int_equal(ev.type, SASL_VERIFY);
        ASSERT_STR(ev.user, user);
        ASSERT_STR(ev.password, STR("pencil"));
        assert_int_equal(sasl_server_verified(s, false, &ev), 0);
        assert_int_equal(ev.type, SASL_FAILED);
        sasl_server_free(s);
    }
}

static enum sasl_event cram(struct str entry_text, bool known, const char *password)
{
    struct sasl_server *s = server(SASL_CRAM_MD5);
    struct sasl_client *c = client(SASL_CRAM_MD5, "tim b", password, "");
    struct password_entry e = entry_of(entry_text);
    struct sasl_server_event ev;
    struct str out;

    assert_int_equal(sasl_server_start(s, NULL, &ev), 0);
    assert_int_equal(ev.type, SASL_CHALLENGE);
    ASSERT_STR(ev.message, STR("<" SERVER_NONCE "@mx.example>"));
    assert_int_equal(sasl_client_step(c, ev.message, &out), 0);
    assert_int_equal(sasl_server_step(s, out, &ev), 0);
    assert_int_equal(ev.type, SASL_SECRET);
    ASSERT_STR(ev.user, STR("tim b"));
    assert_int_equal(sasl_server_secret(s, &e, known, &ev), 0);
    sasl_client_free(c);
    sasl_server_free(s);
    return ev.type;
}

static void test_server_cram_md5(void **state)
{
    struct sasl_server *s = server(SASL_CRAM_MD5);
    struct sasl_server_event ev;

    (void)state;
    assert_int_equal(cram(STR("{PLAIN}tanstaaf"), true, "tanstaaf"), SASL_OK);
    assert_int_equal(cram(STR("{PLAIN}tanstaaf"), true, "wrong"), SASL_FAILED);
    assert_int_equal(cram(STR("{PLAIN}tanstaaf"), false, "tanstaaf"), SASL_FAILED);
    assert_int_equal(cram(STR(PENCIL), true, "pencil"), SASL_FAILED);
    assert_int_equal(cram(STR(PENCIL), true, "nobody"), SASL_FAILED);

    assert_false(sasl_server_takes_initial(s));
    assert_int_equal(sasl_server_start(s, NULL, &ev), 0);
    assert_int_equal(sasl_server_step(s, STR("tim 0123"), &ev), 0);
    assert_int_equal(ev.type, SASL_FAILED);
    sasl_server_free(s);
}

/* RFC 7677 section 3, from the server's side */
static void test_server_scram(void **state)
{
    static const struct str first = STR(CLIENT_FIRST);
    struct sasl_server *s = server(SASL_SCRAM_SHA_256);
    struct password_entry e = entry_of(STR(PENCIL));
    struct sasl_server_event ev;

    (void)state;
    assert_int_equal(sasl_server_start(s, &first, &ev), 0);
    assert_int_equal(ev.type, SASL_SECRET);
    ASSERT_STR(ev.user, STR("user"));
    assert_int_equal(sasl_server_secret(s, &e, true, &ev), 0);
    assert_int_equal(ev.type, SASL_CHALLENGE);
    ASSERT_STR(ev.message, STR(SERVER_FIRST));
    assert_int_equal(sasl_server_step(s, STR(CLIENT_FINAL), &ev), 0);
    assert_int_equal(ev.type, SASL_CHALLENGE);
    ASSERT_STR(ev.message, STR(SERVER_FINAL));
    assert_int_equal(sasl_server_step(s, STR(""), &ev), 0);
    assert_int_equal(ev.type, SASL_OK);
    ASSERT_STR(ev.user, STR("user"));
    sasl_server_free(s);
}

/* Client and server of this file: what the server says at the end. The salt that it sent goes to
 * ret_first. */
static enum sasl_event scram(struct str entry_text, bool known, const char *user,
                             const char *password, const char *authzid, struct buf *ret_first)
{
    struct sasl_server *s = server(SASL_SCRAM_SHA_256);
    struct sasl_client *c = client(SASL_SCRAM_SHA_256, user, password, authzid);
    struct password_entry e = entry_of(entry_text);
    struct sasl_server_event ev;
    struct str out;

    assert_true(sasl_client_initial(c, &out));
    assert_int_equal(sasl_server_start(s, &out, &ev), 0);
    assert_int_equal(ev.type, SASL_SECRET);
    ASSERT_STR(ev.user, str_of(user));
    assert_int_equal(sasl_server_secret(s, &e, known, &ev), 0);
    assert_int_equal(ev.type, SASL_CHALLENGE);
    buf_clear(ret_first);
    assert_int_equal(buf_add_str(ret_first, ev.message), 0);
    assert_int_equal(sasl_client_step(c, ev.message, &out), 0);
    assert_int_equal(sasl_server_step(s, out, &ev), 0);
    if (ev.type == SASL_CHALLENGE) {
        assert_int_equal(sasl_client_step(c, ev.message, &out), 0);
        assert_true(sasl_client_done(c));
        assert_int_equal(sasl_server_step(s, out, &ev), 0);
    }
    sasl_client_free(c);
    sasl_server_free(s);
    return ev.type;
}

static void test_server_scram_decides(void **state)
{
    const struct str pencil = STR(PENCIL), plain = STR("{PLAIN}pencil");
    struct buf first;

    (void)state;
    buf_init(&first, 0);
    assert_int_equal(scram(pencil, true, "user", "pencil", "", &first), SASL_OK);
    assert_int_equal(scram(plain, true, "user", "pencil", "", &first), SASL_OK);
    assert_int_equal(scram(plain, true, "a=b,c", "pencil", "a=b,c", &first), SASL_OK);
    assert_int_equal(scram(plain, true, "j\xc3\xbcrgen", "pencil", "", &first), SASL_OK);
    assert_int_equal(scram(pencil, true, "user", "pencils", "", &first), SASL_FAILED);
    assert_int_equal(scram(plain, true, "user", "pencils", "", &first), SASL_FAILED);
    assert_int_equal(scram(pencil, true, "user", "pencil", "root", &first), SASL_FAILED);
    assert_int_equal(scram(pencil, false, "user", "pencil", "", &first), SASL_FAILED);
    assert_int_equal(scram(plain, false, "user", "pencil", "", &first), SASL_FAILED);
    buf_done(&first);
}

/* What a thread derives ahead of time is what the exchange would have made. */
static void test_derived_entry(void **state)
{
    struct password_entry plain = entry_of(STR("{PLAIN}pencil")), keys = plain, other;
    const char *why;

    (void)state;
    assert_int_equal(sasl_entry_derive(&keys, STR("user"), salt_key), 0);
    assert_int_equal(keys.kind, PASSWORD_SCRAM_SHA_256);
    for (int i = 0; i < 4; i++) {
        const struct password_entry *e = i & 1 ? &keys : &plain;
        struct sasl_client *c = client(SASL_SCRAM_SHA_256, "user", i & 2 ? "pencil" : "wrong", "");
        struct sasl_server *s = server(SASL_SCRAM_SHA_256);
        struct sasl_server_event ev;
        struct str out;

        assert_true(sasl_client_initial(c, &out));
        assert_int_equal(sasl_server_start(s, &out, &ev), 0);
        assert_int_equal(sasl_server_secret(s, e, true, &ev), 0);
        assert_true(str_find(ev.message, STR(",i=15000")) > 0);
        assert_int_equal(sasl_client_step(c, ev.message, &out), 0);
        assert_int_equal(sasl_server_step(s, out, &ev), 0);
        assert_int_equal(ev.type, i & 2 ? SASL_CHALLENGE : SASL_FAILED);
        sasl_client_free(c);
        sasl_server_free(s);
    }
    assert_int_equal(password_parse(STR(PENCIL), &other, &why), 0);
    assert_int_equal(sasl_entry_derive(&other, STR("user"), salt_key), 0);
    assert_int_equal(other.iterations, 4096);
}

/* Asked twice, a user that does not exist has one salt, and it is not another's. */
static void test_server_scram_hides_who_exists(void **state)
{
    const struct str entries[] = {
        STR(PENCIL), STR("{PLAIN}pencil"),
        STR("$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.")
    };
    struct buf a, b, c;

    (void)state;
    buf_init(&a, 0);
    buf_init(&b, 0);
    buf_init(&c, 0);
    for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
        assert_int_equal(scram(entries[i], false, "ghost", "x", "", &a), SASL_FAILED);
        assert_int_equal(scram(entries[i], false, "ghost", "y", "", &b), SASL_FAILED);
        assert_int_equal(scram(entries[i], false, "spook", "x", "", &c), SASL_FAILED);
        ASSERT_STR(buf_str(&a), buf_str(&b));
        assert_false(str_eq(buf_str(&a), buf_str(&c)));
        assert_int_equal(buf_len(&a), buf_len(&c));
        assert_true(str_find(buf_str(&a), STR(SALT)) < 0);
    }
    buf_done(&a);
    buf_done(&b);
    buf_done(&c);
}

static void test_server_scram_malformed(void **state)
{
    static const struct str firsts[] = {
        STR(""),
        STR("n,,"),
        STR("n=user,r=abc"),
        STR("p=tls-unique,,n=user,r=abc"),
        STR("n,x=user,n=user,r=abc"),
        STR("n,,n=,r=abc"),
        STR("n,,n=us=er,r=abc"),
        STR("n,,n=user,r="),
        STR("n,,n=user,r=a\tb"),
        STR("n,,m=ext,n=user,r=abc"),
        STR("n,a==2,n=user,r=abc"),
    };
    static const struct str finals[] = {
        STR(""),
        STR("c=biws"),
        STR("c=biws,r=" CLIENT_NONCE SERVER_NONCE),
        STR("c=biws,r=" CLIENT_NONCE SERVER_NONCE ",p="),
        STR("c=biws,r=" CLIENT_NONCE SERVER_NONCE ",p=QUJD"),
        STR("c=biws,r=" CLIENT_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="),
        STR("c=eSws,r=" CLIENT_NONCE SERVER_NONCE
            ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="),
    };
    static const struct str good = STR(CLIENT_FIRST);
    struct password_entry e = entry_of(STR(PENCIL));
    struct sasl_server_event ev;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        struct sasl_server *s = server(SASL_SCRAM_SHA_256);
        assert_int_equal(sasl_server_start(s, &firsts[i], &ev), 0);
        assert_int_equal(ev.type, SASL_FAILED);
        sasl_server_free(s);
    }
    for (size_t i = 0; i < ARRAY_LEN(finals); i++) {
        struct sasl_server *s = server(SASL_SCRAM_SHA_256);
        assert_int_equal(sasl_server_start(s, &good, &ev), 0);
        assert_int_equal(sasl_server_secret(s, &e, true, &ev), 0);
        assert_int_equal(sasl_server_step(s, finals[i], &ev), 0);
        assert_int_equal(ev.type, SASL_FAILED);
        assert_string_equal(ev.why, "malformed response");
        sasl_server_free(s);
    }
}

/* No message of any length makes either side read or write past an end. */
static void test_long_messages(void **state)
{
    static char text[2 * SASL_MAX_MESSAGE];

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "n,,n=", 5);
    for (size_t n = 1; n < sizeof(text); n = n * 2 + 1)
        for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m++) {
            struct sasl_server *s = server((enum sasl_mechanism)m);
            struct sasl_client *c = client((enum sasl_mechanism)m, "user", "pencil", "");
            struct sasl_server_event ev;
            struct str out;

            assert_int_equal(sasl_server_start(s, NULL, &ev), 0);
            assert_int_equal(sasl_server_step(s, str_make(text, n), &ev), 0);
            for (int i = 0; i < 4 && sasl_client_step(c, str_make(text, n), &out) == 0; i++)
                continue;
            sasl_server_free(s);
            sasl_client_free(c);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_client_plain),
        cmocka_unit_test(test_client_login),
        cmocka_unit_test(test_client_cram_md5),
        cmocka_unit_test(test_client_scram),
        cmocka_unit_test(test_client_scram_rejects_a_false_server),
        cmocka_unit_test(test_client_scram_rejects_bad_challenges),
        cmocka_unit_test(test_client_refuses_credentials),
        cmocka_unit_test(test_server_plain),
        cmocka_unit_test(test_server_plain_responses),
        cmocka_unit_test(test_server_login),
        cmocka_unit_test(test_server_cram_md5),
        cmocka_unit_test(test_server_scram),
        cmocka_unit_test(test_server_scram_decides),
        cmocka_unit_test(test_derived_entry),
        cmocka_unit_test(test_server_scram_hides_who_exists),
        cmocka_unit_test(test_server_scram_malformed),
        cmocka_unit_test(test_long_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
