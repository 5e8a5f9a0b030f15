/* tls.c - building a context from files.
 *
 * Layer: io. Interface: tls.h. Tickets are on: a client that comes again saves a signature, and
 * their keys are in the context, so all workers accept them. They end with the context, at the
 * next reload.
 */
#include "io/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <unistd.h>

#include "io/tls_context.h"

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

/* Says what failed with a file; the result for the caller. */
static int complain(char *error, const char *what, const char *file)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    int r = -EINVAL;

    if (file && access(file, R_OK) < 0) {
        r = -ENOENT;
        reason = strerrordesc_np(errno);
    }
    snprintf(error, TLS_ERROR_TEXT, "%s%s%s: %s", what, file ? " " : "", file ? file : "",
             reason ? reason : "not usable");
    ERR_clear_error();
    return r;
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

static int make_server(struct tls_context *c, const char *cert, const char *key, char *error)
{
    static const unsigned char session_id[] = "tern";

    c->server = new_ctx(TLS_server_method());
    if (!c->server)
        return -ENOMEM;
    if (SSL_CTX_use_certificate_chain_file(c->server, cert) != 1)
        return complain(error, "tls.cert", cert);
    if (SSL_CTX_use_PrivateKey_file(c->server, key, SSL_FILETYPE_PEM) != 1)
        return complain(error, "tls.key", key);
    if (SSL_CTX_check_private_key(c->server) != 1)
        return complain(error, "tls.key does not belong to tls.cert", NULL);
    SSL_CTX_set_session_id_context(c->server, session_id, sizeof(session_id) - 1);
    SSL_CTX_set_session_cache_mode(c->server, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(c->server, 1);
    SSL_CTX_set_dh_auto(c->server, 1);
    SSL_CTX_set_alpn_select_cb(c->server, choose_protocol, NULL);
    return 0;
}

static int make_client(struct tls_context *c, const char *ca, char *error)
{
    c->client = new_ctx(TLS_client_method());
    if (!c->client)
        return -ENOMEM;
    if (SSL_CTX_dane_enable(c->client) <= 0)
        return -ENOMEM;
    SSL_CTX_set_session_cache_mode(c->client, SSL_SESS_CACHE_OFF);
    if (ca && SSL_CTX_load_verify_file(c->client, ca) != 1)
        return complain(error, "tls.ca", ca);
    if (!ca && SSL_CTX_set_default_verify_paths(c->client) != 1)
        return complain(error, "the system's trusted certificates", NULL);
    return 0;
}

int tls_context_new(struct str cert, struct str key, struct str ca, struct tls_context **ret,
                    char *error)
{
    AUTO_FREE char *cert_file = str_dup(cert), *key_file = str_dup(key.n ? key : cert),
                   *ca_file = str_dup(ca);
    struct tls_context *c = calloc(1, sizeof(*c));
    int r = c && cert_file && key_file && ca_file ? 0 : -ENOMEM;

    ERR_clear_error();
    if (c)
        atomic_init(&c->refs, 1);
    if (r == 0)
        r = make_client(c, ca.n ? ca_file : NULL, error);
    if (r == 0 && cert.n)
        r = make_server(c, cert_file, key_file, error);
    if (r == -ENOMEM)
        snprintf(error, TLS_ERROR_TEXT, "out of memory");
    if (r < 0) {
        ERR_clear_error();
        tls_context_unref(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* Whatever is wrong with it: SSL_get_verify_result remembers. */
static int take_any(int ok, X509_STORE_CTX *store)
{
    return 1;
}

int tls_context_ask_clients(struct tls_context *c, struct str ca, char *error)
{
    AUTO_FREE char *file = str_dup(ca);

    ERR_clear_error();
    if (!file) {
        snprintf(error, TLS_ERROR_TEXT, "out of memory");
        return -ENOMEM;
    }
    if (!c->server) {
        snprintf(error, TLS_ERROR_TEXT, "tls.client_ca: there is no tls.cert");
        return -EINVAL;
    }
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(file);
    if (!names || SSL_CTX_load_verify_file(c->server, file) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return complain(error, "tls.client_ca", file);
    }
    SSL_CTX_set_client_CA_list(c->server, names);
    SSL_CTX_set_verify(c->server, SSL_VERIFY_PEER, take_any);
    return 0;
}

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
    free(c);
    return NULL;
}

bool tls_context_serves(const struct tls_context *c)
{
    return c && c->server;
}
