/* intake_each.c - LMTP: each recipient has a reply of its own behind the message (RFC 2033 §4.2).
 *
 * Layer: engine. See intake_internal.h. A policy's refusal of one recipient, which an SMTP client could only be told for
 * all of them or by a notification, goes to the client as the reply for that recipient. What concerns the message (its
 * content, the `data` hook, a commit that failed) is the reply to all that were not refused before.
 */
#include "engine/intake_internal.h"

enum { PASSED_OVER = UINT32_MAX };

static int append(struct intake *in, uint32_t what)
{
    if (in->n_order == in->cap_order) {
        size_t cap = in->cap_order ? in->cap_order * 4 : INTAKE_FEW;
        uint32_t *more = realloc(in->order, cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        in->order = more;
        in->cap_order = cap;
    }
    in->order[in->n_order++] = what;
    return 0;
}

int intake_each_added(struct intake *in)
{
    return in->has_each ? append(in, (uint32_t)in->n) : 0;
}

int intake_pass_over(struct intake *in)
{
    return in->has_each ? append(in, PASSED_OVER) : 0;
}

int intake_each_begin(struct intake *in)
{
    in->each = ARENA_ARRAY(&in->arena, struct smtp_reply, in->n);
    return in->each ? 0 : -ENOMEM;
}

static void log_refused(struct intake *in, const struct smtp_reply *reply, struct str policy)
{
    char client[NET_ADDR_TEXT], id[MSGID_TEXT];

    COUNT(in->e, recipients_rejected, 1);
    engine_event(in->e,
                 EVENT(EVENT_INFO, "recipient_rejected", F_STRZ("id", msgid_text(&in->m->id, id)),
                       F_INT("session", (int64_t)in->session_id),
                       F_STRZ("client", net_addr_ip_text(&in->m->client, client)),
                       F_STR("sender", in->m->sender.text),
                       F_STR("recipient", in->recipients[in->routing].address.text),
                       F_INT("code", reply->code), F_STR("reply", reply->text),
                       F_STR("policy", policy)));
}

int intake_each_refuse(struct intake *in, const struct smtp_reply *reply, struct str policy)
{
    struct smtp_reply *own = &in->each[in->routing];
    struct str text = arena_str(&in->arena, str_first(reply->text, INTAKE_EACH_TEXT));

    if (reply->text.n && !text.p)
        return -ENOMEM;
    *own = *reply;
    own->text = text;
    if (in->n_refused++ == 0)
        in->refusal = *own;
    log_refused(in, own, policy);
    return 0;
}

struct smtp_reply intake_reply_to(const struct intake *in, size_t i,
                                  const struct smtp_reply *common)
{
    uint32_t which = i < in->n_order ? in->order[i] : PASSED_OVER;

    if (which == PASSED_OVER || !in->each || in->each[which].code == 0)
        return *common;
    return in->each[which];
}
