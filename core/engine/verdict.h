/* verdict.h - the reply that a hook's verdict stands for.
 *
 * Layer: engine, internal. Used by session_in, intake and etrn, so that the same verdict gets the same
 * words everywhere.
 */
#ifndef TERN_ENGINE_VERDICT_H
#define TERN_ENGINE_VERDICT_H

#include "engine/hook.h"

static inline bool verdict_refuses(enum verdict v)
{
    return v == VERDICT_REJECT || v == VERDICT_BOUNCE || v == VERDICT_DEFER || v == VERDICT_FAILED;
}

/* RCPT that no policy has an opinion on, for a domain that is not ours, from a client that may not relay. */
#define REPLY_RELAY_DENIED REPLY(550, ENH(5, 7, 1), "relay access denied")

/* For verdicts that refuse (REJECT, BOUNCE, DEFER, FAILED): the policy's own reply when its code fits
 * the verdict, else a default. The text lives with the result. */
static inline struct smtp_reply verdict_reply(const struct hook_result *r)
{
    bool permanent = r->verdict == VERDICT_REJECT || r->verdict == VERDICT_BOUNCE;

    if (r->verdict == VERDICT_DEFER ? smtp_reply_transient(&r->reply) : r->reply.code >= 400)
        return r->reply;
    if (permanent)
        return REPLY(550, ENH(5, 7, 1), "refused by policy");
    if (r->verdict == VERDICT_DEFER)
        return REPLY(451, ENH(4, 7, 1), "try again later");
    return REPLY(451, ENH(4, 3, 0), "local error in processing");
}

#endif
