/* listener.h - listening sockets: TCP with SO_REUSEPORT for each worker, and Unix sockets.
 *
 * Layer: io. A socket is opened (and bound to its port) by one call, watched by another: the
 * daemon opens with its privileges, workers watch without. At most 64 connections are accepted in
 * one turn. When descriptors run out accepting pauses for 100 ms.
 */
#ifndef TERN_IO_LISTENER_H
#define TERN_IO_LISTENER_H

#include <sys/types.h>

#include "engine/settings.h"
#include "io/net.h"

struct io_listener;

/* Must not free the listener. The stream is the owner's: it sets s->ev and s->owner before it
 * returns, or the stream is aborted. LISTEN_TLS_IMPLICIT: the handshake has been started and
 * s->tls is true; `secured` comes, or closed. What is written before waits for the handshake, so
 * a greeting may be written at once. */
typedef void io_accepted_cb(void *owner, struct stream *s, const struct listen_settings *settings);

enum { LISTEN_ERROR_TEXT = 256 };

/* A bound, listening descriptor, or -errno and a text for the operator, "cannot listen on
 * 0.0.0.0:25: address already in use". TCP: call once for each worker. A Unix socket file that
 * nobody listens on any more is replaced; there workers share one descriptor (dup it). From any
 * thread. */
int io_listen_open(const struct net_addr *addr, char *error);

/* The file of a Unix socket: who may connect, and which file it is. */
struct io_socket_file {
    mode_t mode;
    uid_t uid; /* -1: as it is */
    gid_t gid; /* -1: as it is */
    dev_t dev;
    ino_t ino;
};
/* The same for a Unix socket whose file is to be like that before anybody can connect; dev and ino are filled
 * in. */
int io_listen_open_file(const struct net_addr *addr, struct io_socket_file *file, char *error);
/* Makes it so for a socket that is there. No symbolic link is followed, and nothing but a socket of this user's is
 * touched. 0 or -errno. */
int io_socket_file_apply(const char *path, struct io_socket_file *file) MUST_USE;
/* Removes it, when it is that one still. */
void io_socket_file_remove(const char *path, const struct io_socket_file *file);

/* Owns fd from then on (also on failure). settings is borrowed until io_listener_update, stop or
 * free. -ENOMEM. */
int io_listener_new(struct io_net *net, int fd, const struct listen_settings *settings,
                    io_accepted_cb *accepted, void *owner, struct io_listener **ret) MUST_USE;
/* After a reload that keeps the address. */
void io_listener_update(struct io_listener *l, const struct listen_settings *settings);
/* Takes what already waits in the backlog, on the next turn (settings must live until then),
 * then closes and frees. Streams that it accepted live on. */
void io_listener_stop(struct io_listener *l);
/* Closes at once. NULL is fine; returns NULL. */
struct io_listener *io_listener_free(struct io_listener *l);

/* The address it is bound to: tells the port when 0 was asked for. */
const struct net_addr *io_listener_addr(const struct io_listener *l);

#endif
