/* tls.c - building a context from files.
 *
 * Layer: io. Interface: tls.h. Sessions can be taken up again: by tickets, whose keys all workers share
 * (tls_tickets.h), and, for clients of TLS 1.2 that take none, by a cache of SESSIONS_MAX sessions in the
 * context, which ends with it, at the next reload.
 */
#include "io/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <unistd.h>

#include "io/tls_certificate.h"
#include "io/tls_context.h"
#include "io/tls_tickets.h"

enum { SESSIONS_MAX = 4096, CLIENT_CA_MAX = 1 << 20 };

/* Of TLS 1.2 (1.3 has no others): with forward secrecy and authenticated encryption (RFC 9325 §4.2). DHE is for
 * old senders that have such with RSA certificates only by it, and would otherwise send in clear. */
static const char ciphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL";

const char *tls_queue_text(char *dst)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    if (reason)
        snprintf(dst, TLS_ERROR_TEXT, "TLS: %s", reason);
    else if (code)
        snprintf(dst, TLS_ERROR_TEXT, "TLS: error %lx", code);
    else
        snprintf(dst, TLS_ERROR_TEXT, "TLS: protocol error");
    ERR_clear_error();
    return dst;
}

int tls_complain(char *error, const char *where, const char *key, const char *file)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    int r = -EINVAL;

    if (access(file, R_OK) < 0) {
        r = -ENOENT;
        reason = strerrordesc_np(errno);
    } else if (ERR_GET_REASON(code) == PEM_R_NO_START_LINE) {
        reason = "there is nothing of that kind in it, in PEM format";
    }
    snprintf(error, TLS_ERROR_TEXT, "%s.%s %s: %s", where, key, file,
             reason ? reason : "not usable");
    ERR_clear_error();
    return r;
}

static int no_memory(char *error)
{
    snprintf(error, TLS_ERROR_TEXT, "out of memory");
    ERR_clear_error();
    return -ENOMEM;
}

/* A client that offers ALPN, and SMTP not among it, means another service (ALPACA): refused. */
static int choose_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_n,
                           const unsigned char *in, unsigned int n, void *arg)
{
    static const unsigned char smtp[] = "\4smtp";

    if (SSL_select_next_proto((unsigned char **)(uintptr_t)ret, ret_n, smtp, sizeof(smtp) - 1, in,
                              n) == OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_OK;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *new_ctx(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);

    if (!ctx)
        return NULL;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static int make_server(struct tls_context *c)
{
    c->server = new_ctx(TLS_server_method());
    if (!c->server || SSL_CTX_set_cipher_list(c->server, ciphers) != 1 ||
        tls_tickets_use(c->server, c->tickets) < 0)
        return -ENOMEM;
    SSL_CTX_set_session_cache_mode(c->server, SSL_SESS_CACHE_SERVER);
    SSL_CTX_sess_set_cache_size(c->server, SESSIONS_MAX);
    SSL_CTX_set_num_tickets(c->server, 1);
    SSL_CTX_set_max_early_data(c->server, 0);
    SSL_CTX_set_dh_auto(c->server, 1);
    SSL_CTX_set_alpn_select_cb(c->server, choose_protocol, NULL);
    SSL_CTX_set_cert_cb(c->server, tls_certificates_choose, c);
    SSL_CTX_set_tlsext_servername_callback(c->server, tls_certificates_acknowledge);
    SSL_CTX_set_tlsext_servername_arg(c->server, c);
    return 0;
}

static int make_client(struct tls_context *c, struct str ca, char *error)
{
    AUTO_FREE char *file = str_dup(ca);

    c->client = new_ctx(TLS_client_method());
    if (!file || !c->client || SSL_CTX_dane_enable(c->client) <= 0)
        return -ENOMEM;
    SSL_CTX_set_session_cache_mode(c->client, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->client, tls_new_session);
    if (ca.n && SSL_CTX_load_verify_file(c->client, file) != 1)
        return tls_complain(error, "tls", "ca", file);
    if (!ca.n && SSL_CTX_set_default_verify_paths(c->client) != 1) {
        snprintf(error, TLS_ERROR_TEXT, "the system's trusted certificates are not usable");
        return -EINVAL;
    }
    return 0;
}

int tls_context_new(struct str cert, struct str key, struct str ca, struct tls_context **ret,
                    char *error)
{
    struct tls_context *c = calloc(1, sizeof(*c));
    int r = c ? 0 : -ENOMEM;

    ERR_clear_error();
    if (c) {
        atomic_init(&c->refs, 1);
        c->tickets = tls_tickets_new();
        r = c->tickets ? make_client(c, ca, error) : -ENOMEM;
    }
    if (r == 0 && cert.n)
        r = tls_context_add(c, "tls", cert, key, NULL, 0, error);
    if (r < 0) {
        tls_context_unref(c);
        ERR_clear_error();
        return r == -ENOMEM ? no_memory(error) : r;
    }
    *ret = c;
    return 0;
}

/* ---- before it is shared --------------------------------------------------------------------- */

int tls_context_add(struct tls_context *c, const char *where, struct str cert, struct str key,
                    const struct str *names, size_t n_names, char *error)
{
    struct tls_certificate *one, **grown;
    int r = tls_certificate_load(where, "cert", cert, key, names, n_names, &one, error);

    if (r < 0)
        return r == -ENOMEM ? no_memory(error) : r;
    grown = realloc(c->certificates, (c->n_certificates + 1) * sizeof(struct tls_certificate *));
    if (!grown) {
        tls_certificate_free(one);
        return no_memory(error);
    }
    c->certificates = grown;
    c->certificates[c->n_certificates++] = one;
    if ((!c->server && make_server(c) < 0) || tls_names_add(c, one) < 0 ||
        tls_certificates_set_default(c) < 0)
        return no_memory(error); /* each of them has been tried by itself */
    return 0;
}

int tls_context_add_own(struct tls_context *c, const char *place, struct str cert, struct str key,
                        char *error)
{
    struct tls_certificate *one, **grown;
    int r = tls_certificate_load("route", "certificate", cert, key, NULL, 0, &one, error);

    if (r < 0)
        return r == -ENOMEM ? no_memory(error) : r;
    grown = realloc(c->own, (c->n_own + 1) * sizeof(struct tls_certificate *));
    if (!grown || !(one->place = strdup(place))) {
        c->own = grown ? grown : c->own;
        tls_certificate_free(one);
        return no_memory(error);
    }
    one->info.place = str_of(one->place);
    c->own = grown;
    c->own[c->n_own++] = one;
    return 0;
}

static int digest_file(const char *file, uint8_t *ret)
{
    BIO *in = BIO_new_file(file, "r");
    char *content = malloc(CLIENT_CA_MAX);
    int n = in && content ? BIO_read(in, content, CLIENT_CA_MAX) : -1;
    int ok = n >= 0 && EVP_Digest(content, (size_t)n, ret, NULL, EVP_sha256(), NULL) == 1;

    free(content);
    BIO_free(in);
    return ok ? 0 : -ENOMEM;
}

int tls_context_add_client_ca(struct tls_context *c, const char *where, struct str file,
                              char *error)
{
    struct tls_client_ca one = { .file = str_dup(file) }, *grown;

    for (size_t i = 0; one.file && i < c->n_client_cas; i++)
        if (strcmp(c->client_cas[i].file, one.file) == 0) {
            free(one.file);
            return 0;
        }
    ERR_clear_error();
    grown = realloc(c->client_cas, (c->n_client_cas + 1) * sizeof(*grown));
    if (grown)
        c->client_cas = grown;
    one.store = X509_STORE_new();
    if (!one.file || !grown || !one.store) {
        free(one.file);
        X509_STORE_free(one.store);
        return no_memory(error);
    }
    one.names = SSL_load_client_CA_file(one.file);
    int r = one.names && X509_STORE_load_file(one.store, one.file) == 1
                ? digest_file(one.file, one.id)
                : tls_complain(error, where, "client_ca", one.file);
    if (r < 0) {
        sk_X509_NAME_pop_free(one.names, X509_NAME_free);
        X509_STORE_free(one.store);
        free(one.file);
        return r == -ENOMEM ? no_memory(error) : r;
    }
    c->client_cas[c->n_client_cas++] = one;
    return 0;
}

void tls_context_continue(struct tls_context *c, const struct tls_context *before)
{
    struct tls_tickets *old = c->tickets;

    if (!before || before == c)
        return;
    c->tickets = tls_tickets_ref(before->tickets);
    if (c->server)
        CHECK(tls_tickets_use(c->server, c->tickets) == 0);
    tls_tickets_unref(old);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct tls_context *tls_context_ref(struct tls_context *c)
{
    if (c)
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

struct tls_context *tls_context_unref(struct tls_context *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    SSL_CTX_free(c->server);
    SSL_CTX_free(c->client);
    tls_names_free(c);
    for (size_t i = 0; i < c->n_certificates; i++)
        tls_certificate_free(c->certificates[i]);
    free(c->certificates);
    for (size_t i = 0; i < c->n_own; i++)
        tls_certificate_free(c->own[i]);
    free(c->own);
    for (size_t i = 0; i < c->n_client_cas; i++) {
        sk_X509_NAME_pop_free(c->client_cas[i].names, X509_NAME_free);
        X509_STORE_free(c->client_cas[i].store);
        free(c->client_cas[i].file);
    }
    free(c->client_cas);
    tls_tickets_unref(c->tickets);
    free(c);
    return NULL;
}

bool tls_context_serves(const struct tls_context *c)
{
    return c && c->server;
}

size_t tls_context_certificates(const struct tls_context *c)
{
    return c->n_certificates + c->n_own;
}

const struct tls_certificate_info *tls_context_certificate(const struct tls_context *c, size_t i)
{
    return i < c->n_certificates ? &c->certificates[i]->info : &c->own[i - c->n_certificates]->info;
}
