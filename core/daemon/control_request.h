/* control_request.h - what a request to the control API asks for, taken apart and decoded.
 *
 * Layer: daemon. No I/O, nothing of the HTTP library: bytes of strangers come in, values go out.
 */
#ifndef TERN_DAEMON_CONTROL_REQUEST_H
#define TERN_DAEMON_CONTROL_REQUEST_H

#include "base/arena.h"
#include "base/buf.h"
#include "mail/msgid.h"

enum { CONTROL_SEGMENTS = 6, CONTROL_ARGS = 16, CONTROL_REQUEST_BYTES = 16 * 1024 };

struct control_request {
    struct arena arena;                   /* owns what follows */
    struct str method;                    /* "GET" */
    struct str segment[CONTROL_SEGMENTS]; /* of the path, decoded: "v1", "queues", "example.com" */
    size_t n_segments;
    struct {
        struct str name, value;
    } arg[CONTROL_ARGS];
    size_t n_args;
    const char *error; /* what is wrong with it, for people; NULL: nothing */
};

/* path: as in the request line, without the query; still encoded. */
void control_request_init(struct control_request *r, const char *method, const char *path);
/* One argument of the query, still encoded; value may be NULL. */
void control_request_add(struct control_request *r, const char *name, const char *value);
void control_request_done(struct control_request *r);

/* Empty (p is NULL) when it was not given. */
struct str control_request_arg(const struct control_request *r, const char *name);
/* A number, at most max; `otherwise` when it was not given. False: it is none. */
bool control_request_number(const struct control_request *r, const char *name, uint64_t max,
                            uint64_t otherwise, uint64_t *ret);
/* The first argument that is not in `known` (names with a blank between), or NULL. */
const char *control_request_unknown(const struct control_request *r, const char *known);

/* pattern: "v1/queues/?/hold"; a '?' stands for one part that is not empty. */
bool control_request_path_is(const struct control_request *r, const char *pattern);

/* Where a listing goes on: "ID.N" in the order of ids, "CLASS.DUE.ID.N" in a queue. dst has
 * CONTROL_CURSOR_TEXT bytes. */
struct control_cursor {
    int class_; /* enum spool_class; -1: by id */
    int64_t due_ms;
    struct msgid id;
    uint32_t n;
};
enum { CONTROL_CURSOR_TEXT = 80 };
const char *control_cursor_text(const struct control_cursor *c, char *dst);
bool control_cursor_parse(struct str s, bool in_queue, struct control_cursor *ret);

/* Decodes %XX into the arena; false: bad escapes, a NUL, too long. */
bool control_decode(struct arena *a, struct str s, struct str *ret);
/* Encodes one segment of a path, or a value of the query. */
int control_encode(struct str s, struct buf *out);

#endif
