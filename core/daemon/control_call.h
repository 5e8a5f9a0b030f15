/* control_call.h - one request to the control API, as those who serve it see it.
 *
 * Layer: daemon, main thread. A function that serves a call answers it before it returns, or has it wait
 * for work that other threads do (control_wait). Work may outlive its call: when the time is over the
 * call is answered without it, and the work ends for itself.
 */
#ifndef TERN_DAEMON_CONTROL_CALL_H
#define TERN_DAEMON_CONTROL_CALL_H

#include <jansson.h>

#include "base/list.h"
#include "base/timer.h"
#include "daemon/control_request.h"
#include "daemon/router.h"

struct import_call;
struct MHD_Connection;
struct MHD_Response;

/* What a call waits for: parts done by workers. Embedded in the memory of who serves. */
struct control_work {
    struct list link;          /* of control->works */
    struct control_call *call; /* NULL: nobody waits any more */
    unsigned left;             /* parts that are not back */
    /* All parts are back, or the daemon ends: answers, when call is there, and frees. */
    void (*finish)(struct control_work *w);
};

struct control_call {
    struct control *control;
    struct router *router;
    struct control_request request;
    struct buf body;
    bool too_large;
    uint64_t received;          /* octets of body, dropped ones too */
    json_t *input;              /* the body: an object, of a POST */
    struct import_call *import; /* the body is a message, taken piece by piece: control_import.c */

    struct MHD_Connection *connection;
    bool served, suspended;
    struct MHD_Response *response; /* the answer */
    unsigned status;
    struct control_work *work;
    struct timer deadline;
    int64_t wait_ms; /* to the deadline, when it was set */
    bool goes_on;    /* past the deadline the work is still of use: 202, not 504 */
};

enum { CONTROL_WAIT_MS = 10000, CONTROL_BODY_MAX = 64 * 1024, CONTROL_PAGE_MAX = 1000 };

/* Each call is answered once. */
void control_answer(struct control_call *c, unsigned status, json_t *answer); /* takes it over */
/* {"error": code, "message": text} */
void control_error(struct control_call *c, unsigned status, const char *code, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* The same for 0 or -errno of a read or a command. */
void control_errno(struct control_call *c, int error);
void control_answer_bytes(struct control_call *c, unsigned status, const char *type,
                          struct str bytes);
/* Takes the response over. */
void control_answer_response(struct control_call *c, unsigned status, const char *type,
                             struct MHD_Response *response);

/* The connection takes part again, in a suspended call that is not answered yet. */
void control_resume(struct control_call *c);
/* w: left and finish are set. The call waits until all parts are back. */
void control_wait(struct control_call *c, struct control_work *w);
/* Longer than CONTROL_WAIT_MS from now on; after control_wait. */
void control_wait_at_most(struct control_call *c, int64_t ms);
/* One part is back. */
void control_work_done(struct control_work *w);

/* A field of the body: false when it is there and no string (the call has then been answered), or is
 * missing and required. */
bool control_input_text(struct control_call *c, const char *name, bool required, struct str *ret);

/* ---- a body that is taken piece by piece: control_import.c ---------------------------------------- */

/* The head of a request has come: does its body go to control_import_data? */
bool control_import_wants(const struct control_call *c);
/* 0: go on; 1: the call is to be suspended until control_resume. What comes behind an answer is dropped. */
int control_import_data(struct control_call *c, struct str bytes);
void control_imports_begin(void);
/* The engines have gone: whoever is suspended is answered. */
void control_imports_end(void);
/* The call ends, whatever became of it. */
void control_import_left(struct control_call *c);

/* ---- JSON values: never NULL but when out of memory -------------------------------------------- */

json_t *control_text(struct str s);         /* bytes that are not UTF-8 become U+FFFD */
json_t *control_text_or_null(struct str s); /* empty: null */
json_t *control_time(int64_t wall_ms);      /* "2026-11-23T17:35:39.123Z"; 0: null */

struct spool_queue;
struct queue_status;
/* One queue; known: its owner has it in memory, and st says how it fares. */
json_t *control_queue_json(const struct router *r, const struct spool_queue *row,
                           const struct queue_status *st, bool known);

struct spool_stats;
/* Histograms for Prometheus. */
void control_add_spool_latencies(struct buf *out, const struct spool_stats *st);

/* ---- who serves -------------------------------------------------------------------------------- */

void control_route(struct control_call *c); /* control_routes.c */
void control_serve_status(struct control_call *c);
void control_serve_metrics(struct control_call *c);
void control_serve_spool(struct control_call *c);
void control_serve_reload(struct control_call *c);
void control_serve_queues(struct control_call *c);
void control_serve_queue(struct control_call *c);
void control_serve_queue_command(struct control_call *c);
void control_serve_messages(struct control_call *c);
void control_serve_filtered(struct control_call *c);
void control_serve_message(struct control_call *c);
void control_serve_why(struct control_call *c);
void control_serve_content(struct control_call *c);
void control_serve_message_command(struct control_call *c);
void control_serve_tls_reports(struct control_call *c);
void control_serve_etrn(struct control_call *c);
void control_serve_import(struct control_call *c);
void control_serve_operations(struct control_call *c);
void control_serve_operation_start(struct control_call *c);
void control_serve_operation(struct control_call *c);
void control_serve_operation_cancel(struct control_call *c);

#endif
