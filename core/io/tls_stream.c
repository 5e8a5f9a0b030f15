/* tls_stream.c - TLS of one stream: handshake, records, alerts.
 *
 * Layer: io. Inside: stream.h. OpenSSL never touches the socket. It reads from the bytes that
 * one recv brought (many records for one system call) and writes to a buffer that leaves at the
 * end of the turn (many records for one system call, too). Both ends never block it: reading is
 * drained each time, the buffer grows by what is encrypted, and that is bounded.
 */
#include <openssl/err.h>
#include <stdio.h>
#include <time.h>

#include "io/stream.h"
#include "io/tls_context.h"
#include "io/tls_sessions.h"

enum {
    RECORD = 16384,
    RAW_ENOUGH = 65536, /* ciphertext that is sent before more is encrypted */
};

struct tls_half {
    SSL *ssl;
    struct tls_context *context;
    struct str cipher; /* what SSL_read may take, during tls_half_input */
    struct buf raw;    /* to be sent as it is: clear text from before, then records */
    bool server, done, shut;
    bool keeps; /* client: sessions, under session_key */
    uint8_t session_key[TLS_SESSIONS_KEY];
    bool ended; /* close_notify came, or an error, after input the owner has not taken */
    int end_error;
    char end_why[TLS_ERROR_TEXT];
};

/* ---- what OpenSSL reads from and writes to --------------------------------------------------- */

static int bio_read(BIO *b, char *to, size_t n, size_t *ret)
{
    struct tls_half *t = BIO_get_data(b);

    BIO_clear_retry_flags(b);
    if (t->cipher.n == 0) {
        BIO_set_retry_read(b);
        return 0;
    }
    struct str part = str_first(t->cipher, n);
    memcpy(to, part.p, part.n);
    t->cipher = str_from(t->cipher, part.n);
    *ret = part.n;
    return 1;
}

static int bio_write(BIO *b, const char *from, size_t n, size_t *ret)
{
    struct tls_half *t = BIO_get_data(b);

    BIO_clear_retry_flags(b);
    if (buf_add(&t->raw, from, n) < 0)
        return 0;
    *ret = n;
    return 1;
}

static long bio_ctrl(BIO *b, int command, long n, void *arg)
{
    return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *b)
{
    BIO_set_init(b, 1);
    return 1;
}

void *tls_bio_method_new(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "tern stream");

    if (m && (BIO_meth_set_read_ex(m, bio_read) != 1 || BIO_meth_set_write_ex(m, bio_write) != 1 ||
              BIO_meth_set_ctrl(m, bio_ctrl) != 1 || BIO_meth_set_create(m, bio_create) != 1)) {
        BIO_meth_free(m);
        m = NULL;
    }
    return m;
}

void tls_bio_method_free(void *method)
{
    BIO_meth_free(method);
}

/* ---- facts and faults ------------------------------------------------------------------------ */

static void fail(struct io_stream *s, const char *why)
{
    ERR_clear_error();
    io_stream_end(s, -EPROTO, why);
}

static enum tls_fault fault_of(long verdict)
{
    switch (verdict) {
    case X509_V_OK: return TLS_FINE;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return TLS_OTHER_NAME;
    case X509_V_ERR_CERT_HAS_EXPIRED: return TLS_EXPIRED;
    case X509_V_ERR_DANE_NO_MATCH: return TLS_NOT_TLSA;
    default: return TLS_NOT_TRUSTED;
    }
}

/* A failed certificate says more than "certificate verify failed". */
static const char *handshake_fault(struct io_stream *s, char *dst)
{
    struct tls_half *t = s->tls;
    long verdict = SSL_get_verify_result(t->ssl);

    s->base.tls_fault = TLS_FAILED;
    if (!t->server && verdict != X509_V_OK &&
        (SSL_get_verify_mode(t->ssl) & SSL_VERIFY_PEER) != 0) {
        s->base.tls_fault = fault_of(verdict);
        snprintf(dst, TLS_ERROR_TEXT, "TLS: %s", X509_verify_cert_error_string(verdict));
        return dst;
    }
    return tls_queue_text(dst);
}

/* Takes the reference over. */
static void keep_session(struct io_stream *s, SSL_SESSION *session)
{
    struct tls_half *t = s->tls;

    /* Not one that was begun before a reload: who is trusted may have changed. */
    if (session && t->keeps && t->context == s->net->tls)
        tls_sessions_put(s->net->sessions, t->session_key, session, time(NULL));
    else
        SSL_SESSION_free(session);
}

int tls_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct io_stream *s = SSL_get_app_data(ssl);

    keep_session(s, session);
    return 1; /* the reference was taken */
}

static void secured(struct io_stream *s)
{
    struct tls_half *t = s->tls;
    struct tls_facts facts;
    struct buf room;

    tls_facts_of(t->ssl, &room, &facts);
    /* A session of TLS 1.2 can be taken up as often as the host likes. */
    if (!t->server && facts.resumed && SSL_version(t->ssl) == TLS1_2_VERSION)
        keep_session(s, SSL_get1_session(t->ssl));
    t->done = true;
    s->base.tls = true;
    if (!t->server) {
        long verdict = SSL_get_verify_result(t->ssl);
        s->base.tls_fault = fault_of(verdict);
        s->base.tls_why = verdict == X509_V_OK ? NULL : X509_verify_cert_error_string(verdict);
    }
    io_loop_timer_stop(s->net->loop, &s->timer);
    if (buf_len(&s->out))
        io_stream_dirty(s);
    s->base.ev->secured(&s->base, s->base.owner, &facts);
    buf_done(&room);
}

/* One step. True: it is done, and the stream still open. */
static bool handshake(struct io_stream *s)
{
    struct tls_half *t = s->tls;

    ERR_clear_error();
    int r = SSL_do_handshake(t->ssl);
    if (buf_len(&t->raw))
        io_stream_dirty(s);
    if (r == 1) {
        secured(s);
        return s->state == STREAM_OPEN;
    }
    if (SSL_get_error(t->ssl, r) != SSL_ERROR_WANT_READ) {
        char why[TLS_ERROR_TEXT];
        fail(s, handshake_fault(s, why));
    }
    return false;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* What this handshake can begin with, and where its own session is kept. */
static void take_up_session(struct io_stream *s, const struct tls_request *req)
{
    struct tls_half *t = s->tls;
    SSL_SESSION *session = NULL;

    t->keeps = tls_sessions_key(&s->base.local, &s->base.peer, req, t->session_key);
    if (t->keeps)
        session = tls_sessions_take(s->net->sessions, t->session_key, time(NULL));
    if (session && SSL_set_session(t->ssl, session) != 1)
        ERR_clear_error(); /* a whole handshake, then */
    SSL_SESSION_free(session);
}

int tls_half_start(struct io_stream *s, const struct tls_request *req)
{
    struct tls_context *c = s->net->tls;
    SSL_CTX *ctx = !c ? NULL : req->server ? c->server : c->client;
    int r = 0;

    if (!ctx)
        return -ENOTSUP;
    ERR_clear_error();
    struct tls_half *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->context = tls_context_ref(c);
    t->server = req->server;
    t->ssl = SSL_new(ctx);
    BIO *bio = t->ssl ? BIO_new(s->net->bio_method) : NULL;
    if (!bio) {
        tls_half_free(t);
        return -ENOMEM;
    }
    BIO_set_data(bio, t);
    SSL_set_bio(t->ssl, bio, bio);
    r = t->server ? tls_set_up_server(t->ssl, c, req) : tls_set_up_client(t->ssl, c, req);
    if (r < 0) {
        ERR_clear_error();
        tls_half_free(t);
        return r;
    }

    t->raw = s->out;
    buf_init(&s->out, 0);
    s->tls = t;
    SSL_set_app_data(t->ssl, s);
    if (!t->server) {
        take_up_session(s, req);
        r = SSL_do_handshake(t->ssl);
        if (r != 1 && SSL_get_error(t->ssl, r) != SSL_ERROR_WANT_READ) {
            s->error = -EPROTO;
            io_stream_wake(s);
        }
        ERR_clear_error();
    }
    return 0;
}

struct tls_half *tls_half_free(struct tls_half *t)
{
    if (!t)
        return NULL;
    /* Who hangs up without close_notify may take the session up again all the same (RFC 5246 §7.2.1); OpenSSL would
     * forget it. */
    if (t->done && !t->end_error)
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    tls_context_unref(t->context);
    buf_done(&t->raw);
    free(t);
    return NULL;
}

/* ---- records --------------------------------------------------------------------------------- */

/* Notes how it ends: told now, or when the owner has taken its input. */
static void set_end(struct io_stream *s, int error, const char *why)
{
    struct tls_half *t = s->tls;

    t->ended = true;
    t->end_error = error;
    str_copy(str_of(why), t->end_why, sizeof(t->end_why));
    s->got_eof = s->got_eof || error == 0;
}

bool tls_half_tell_end(struct io_stream *s)
{
    struct tls_half *t = s->tls;

    if (!t->ended)
        return false;
    io_stream_end(s, t->end_error, t->end_why);
    return true;
}

/* Decrypts all that is there into the loop's buffer; notes an end. Returns the number of bytes. */
static size_t decrypt(struct io_stream *s)
{
    struct tls_half *t = s->tls;
    size_t n = 0, got;

    ERR_clear_error();
    while (n < TLS_PLAIN_MAX) {
        if (SSL_read_ex(t->ssl, s->net->plain_buf + n, TLS_PLAIN_MAX - n, &got) == 1) {
            n += got;
            continue;
        }
        int reason = SSL_get_error(t->ssl, 0);
        if (reason == SSL_ERROR_ZERO_RETURN) {
            set_end(s, 0, "closed by peer");
        } else if (reason != SSL_ERROR_WANT_READ) {
            char why[TLS_ERROR_TEXT];
            set_end(s, -EPROTO, tls_queue_text(why));
        }
        break;
    }
    return n;
}

void tls_half_input(struct io_stream *s, const char *p, size_t n)
{
    struct tls_half *t = s->tls;

    if (t->ended)
        return; /* nothing is parsed after the end */
    t->cipher = str_make(p, n);
    if (t->done || handshake(s)) {
        size_t plain = decrypt(s);
        /* Records never grow when decrypted, so all has been taken. */
        CHECK(t->cipher.n == 0 || t->ended);
        if (buf_len(&t->raw))
            io_stream_dirty(s);
        if (io_stream_deliver(s, s->net->plain_buf, plain) && t->ended && !s->paused &&
            buf_len(&s->in) == 0)
            tls_half_tell_end(s);
    }
    t->cipher = STR_NONE;
}

void tls_half_eof(struct io_stream *s)
{
    io_stream_end(s, s->tls->done ? 0 : -EPROTO,
                  s->tls->done ? "closed by peer without close_notify"
                               : "TLS: closed by peer in the handshake");
}

static void shut(struct tls_half *t)
{
    t->shut = true;
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}

int tls_half_encrypt(struct io_stream *s, struct str *more)
{
    struct tls_half *t = s->tls;

    if (!t->done || t->shut || (t->ended && t->end_error))
        return 0;
    while (buf_len(&t->raw) < RAW_ENOUGH && (buf_len(&s->out) || more->n)) {
        bool kept = buf_len(&s->out) != 0;
        struct str part = str_first(kept ? buf_str(&s->out) : *more, RECORD);
        size_t n;
        if (SSL_write_ex(t->ssl, part.p, part.n, &n) != 1) {
            ERR_clear_error();
            return -EPROTO;
        }
        if (kept)
            buf_consume(&s->out, n);
        else
            *more = str_from(*more, n);
    }
    if (s->state == STREAM_FLUSHING && buf_len(&s->out) == 0)
        shut(t);
    return 0;
}

struct buf *tls_half_raw(struct tls_half *t)
{
    return &t->raw;
}

size_t tls_half_unsent(const struct tls_half *t)
{
    return buf_len(&t->raw);
}
