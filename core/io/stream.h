/* stream.h - the inside of a stream: shared by stream.c, tls_stream.c and net.c only.
 *
 * Layer: io. Others see struct stream (engine/ports.h), io/net.h and io/tls.h.
 *
 * Rules that all of it keeps: owners are called from the loop's own steps only (readiness,
 * timers, `later`, the flush at the end of a turn), never from inside a call of theirs; after
 * each callback the state is looked at anew; memory goes at the end of the turn, so no frame
 * holds a stream that is gone.
 */
#ifndef TERN_IO_STREAM_H
#define TERN_IO_STREAM_H

#include <ev.h>

#include "io/net.h"

enum stream_state {
    STREAM_CONNECTING,
    STREAM_OPEN,
    STREAM_FLUSHING,  /* no owner any more: sends what is left */
    STREAM_LINGERING, /* all is sent and our side is shut: waits for the peer to close */
    STREAM_DEAD,      /* freed at the end of the turn */
};

struct tls_half; /* a stream's TLS: tls_stream.c */

struct io_stream {
    struct stream base; /* first: ops, ev, owner, addresses */
    struct io_net *net;
    struct tls_half *tls; /* NULL: in clear */
    ev_io watcher;        /* watcher.fd: -1 when dead */
    struct list link;     /* of net->streams, or net->dead */
    struct list dirty;    /* of net->dirty: something to send at the end of the turn */
    struct later wake;    /* what is to be told on a later turn */
    struct timer timer;   /* handshake, closing, lingering */
    struct buf in;        /* received, not consumed. While not empty, nothing is read */
    struct buf out;       /* to be sent; with TLS: to be encrypted */
    struct buf early;  /* of the handshake, received before TLS began: looked at on a later turn */
    struct str window; /* during the data callback: what it looks at */

    enum stream_state state;
    int error;         /* of the attempt to begin; waits to be told. -errno, or 0 */
    int write_error;   /* sending failed: what can be read is read, then it is told. -errno, or 0 */
    uint32_t lingered; /* bytes thrown away */
    bool in_data : 1;  /* the data callback runs */
    bool paused : 1;   /* input was left, or it is held: nothing is read until resume */
    bool resumed : 1;  /* called from inside the data callback */
    bool blocked : 1;  /* the socket's buffer is full: EV_WRITE is watched */
    bool above_high : 1; /* drained is owed */
    bool got_eof : 1;
};

struct io_net {
    struct port_net port;
    struct io_loop *loop;
    struct ev_loop *ev;
    struct tls_context *tls;
    struct tls_sessions *sessions; /* with hosts */
    void *bio_method;              /* tls_stream.c's */
    struct list streams, dirty, dead;
    size_t n_streams;
    struct later flush;
    char *read_buf;  /* NET_READ_MAX: what recv fills */
    char *plain_buf; /* TLS_PLAIN_MAX: what SSL_read fills */
};

/* Plaintext of NET_READ_MAX bytes of records and of one that had been incomplete. */
enum { TLS_PLAIN_MAX = NET_READ_MAX + 32768 };

extern const struct stream_ops io_stream_ops;

/* net->flush: the end of a turn. What was written goes out, what died is freed. */
void io_net_flush(struct later *l);

/* Owns fd. NULL: out of memory (fd is closed). */
struct io_stream *io_stream_new(struct io_net *n, int fd, enum stream_state state);
/* Gives bytes to the owner; what it leaves is kept. False: the stream is not open any more. */
bool io_stream_deliver(struct io_stream *s, const char *p, size_t n);
/* Tells the owner (unless the error is being closed already) and lets go. why may be NULL: the
 * words of the system. error: 0 or -errno. */
void io_stream_end(struct io_stream *s, int error, const char *why);
/* Calls wake on a later turn. */
void io_stream_wake(struct io_stream *s);
/* Something waits to be sent. */
void io_stream_dirty(struct io_stream *s);
/* Closes the descriptor; memory goes at the end of the turn. No callback. */
void io_stream_kill(struct io_stream *s);

/* ---- TLS (tls_stream.c) ---------------------------------------------------------------------- */

void *tls_bio_method_new(void);
void tls_bio_method_free(void *method);

/* Attaches TLS: what is in s->out goes out in clear before. -ENOMEM, -EINVAL, -ENOTSUP. */
int tls_half_start(struct io_stream *s, const struct tls_request *req);
struct tls_half *tls_half_free(struct tls_half *t);
/* Bytes from the network. May call the owner, and end the stream. */
void tls_half_input(struct io_stream *s, const char *p, size_t n);
/* The network has no more. */
void tls_half_eof(struct io_stream *s);
/* An end that came in a record, and waits for the owner to take its input. True: told. */
bool tls_half_tell_end(struct io_stream *s);
/* Encrypts from s->out, then from *more, while little waits to be sent; behind the last of it
 * close_notify, when the stream is being flushed. -EPROTO. */
int tls_half_encrypt(struct io_stream *s, struct str *more);
/* Ciphertext to be sent. */
struct buf *tls_half_raw(struct tls_half *t);
size_t tls_half_unsent(const struct tls_half *t);

#endif
