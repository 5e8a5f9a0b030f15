/* view.h - what ctx holds: handles on the engine's views, good as long as their hook runs.
 *
 * Layer: lua, internal. A view is (task, generation): it reads through the task's hook_input, and
 * raises once the generation has changed. Fields are read when they are asked for, so that a hook
 * pays for what it looks at.
 */
#ifndef TERN_LUA_VIEW_H
#define TERN_LUA_VIEW_H

#include "lua/task.h"

enum view_kind {
    VIEW_CTX,
    VIEW_SESSION,
    VIEW_MESSAGE,
    VIEW_HEADERS,
    VIEW_BODY,
    VIEW_RECIPIENT,
    VIEW_ATTEMPT,
    VIEW_REQUEST,
    VIEW_CREDENTIALS,
    VIEW_KINDS
};

enum { VIEW_CTX_EVENT = 6 }; /* user value of ctx that holds the event */

struct view {
    struct task *task;
    uint64_t generation;
    uint64_t cursor; /* VIEW_BODY */
};

/* Pushes the value of one field; `self` is the view at index 1. Returns 1 (or 0: nil). */
struct view_field {
    const char *name;
    int (*get)(lua_State *L, struct task *task);
    int cache; /* user value that keeps what get pushed; 0: none */
};

void view_open(lua_State *L);
void view_push(lua_State *L, struct task *task, enum view_kind kind);
/* The task of the view at index 1; raises when its time is over or it is no such view. */
struct task *view_check(lua_State *L, enum view_kind kind);
const char *view_name(enum view_kind kind);

/* The tables of fields, each ends with a name of NULL. */
extern const struct view_field view_ctx_fields[], view_session_fields[], view_message_fields[],
    view_headers_fields[], view_body_fields[], view_recipient_fields[], view_attempt_fields[],
    view_request_fields[], view_credentials_fields[];
int view_body_step(lua_State *L);     /* for chunk in message.body */
int view_message_parts(lua_State *L); /* message:parts() */

/* The next piece of the body; false at the end. Raises when it cannot be read. */
bool view_next_piece(lua_State *L, struct task *task, uint64_t *cursor, struct str *ret);
/* So much has been read that it is time for task_breathe. */
bool view_out_of_breath(lua_State *L, const struct task *task);
/* Pushes a header's value without its line breaks; gives what it pushed. */
struct str view_push_unfolded(lua_State *L, struct str value);

/* The getter of a method, which gives the function itself: message.headers:get("Subject"). */
#define VIEW_METHOD(name)                                                                          \
    static int push_##name(lua_State *L, struct task *t)                                           \
    {                                                                                              \
        lua_pushcfunction(L, name);                                                                \
        return 1;                                                                                  \
    }

/* {address, port} */
void view_push_address(lua_State *L, const struct net_addr *a);
/* The table that belongs to id in the policies' table `slot` (session.data), made when it is
 * not there. */
void view_push_data(lua_State *L, struct task *task, int slot, uint64_t id);

#endif
