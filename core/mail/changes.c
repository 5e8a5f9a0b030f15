/* changes.c - which header fields policies changed. Layer: mail. Interface: changes.h. */
#include "mail/changes.h"

enum { CHANGES_VERSION = 1 };

static const char *const op_names[] = {
    [HEADER_ADDED] = "added",
    [HEADER_PREPENDED] = "prepended",
    [HEADER_REPLACED] = "replaced",
    [HEADER_REMOVED] = "removed",
};

const char *header_op_name(enum header_op op)
{
    return (unsigned)op < ARRAY_LEN(op_names) ? op_names[op] : "changed";
}

bool header_op_parse(struct str name, enum header_op *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(op_names); i++)
        if (str_eq(name, str_of(op_names[i]))) {
            *ret = (enum header_op)i;
            return true;
        }
    return false;
}

int changes_encode(const struct header_change *list, size_t n, uint32_t left_out, struct buf *out)
{
    size_t kept = MIN(n, (size_t)CHANGES_KEPT);

    if (n == 0)
        return 0;
    buf_add_u8(out, CHANGES_VERSION);
    buf_add_u8(out, (uint8_t)kept);
    for (size_t i = 0; i < kept; i++) {
        buf_add_u8(out, (uint8_t)list[i].op);
        buf_add_u32(out, list[i].n);
        buf_add_lstr(out, str_first(list[i].name, CHANGES_NAME));
        buf_add_lstr(out, str_first(list[i].place, CHANGES_PLACE));
    }
    return buf_add_u32(out, left_out + (uint32_t)(n - kept));
}

int changes_decode(struct arena *a, struct str in, struct header_changes *ret)
{
    struct header_changes c = { 0 };
    uint8_t version, n, op;

    if (in.n == 0) {
        *ret = c;
        return 0;
    }
    if (!take_u8(&in, &version) || version != CHANGES_VERSION || !take_u8(&in, &n) || n == 0 ||
        n > CHANGES_KEPT)
        return -EBADMSG;
    struct header_change *list = ARENA_ARRAY(a, struct header_change, n);
    if (!list)
        return -ENOMEM;
    for (; c.n < n; c.n++) {
        struct header_change *h = &list[c.n];
        if (!take_u8(&in, &op) || op > HEADER_REMOVED || !take_u32(&in, &h->n) ||
            !take_lstr(&in, &h->name) || h->name.n > CHANGES_NAME || !take_lstr(&in, &h->place) ||
            h->place.n > CHANGES_PLACE)
            return -EBADMSG;
        h->op = (enum header_op)op;
    }
    if (!take_u32(&in, &c.left_out) || in.n)
        return -EBADMSG;
    c.list = list;
    *ret = c;
    return 0;
}

int changes_text(const struct header_changes *c, struct buf *out)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct header_change *h = &c->list[i];
        buf_printf(out, "%s%s ", i ? ", " : "", header_op_name(h->op));
        if (h->n > 1)
            buf_printf(out, "%u ", h->n);
        buf_add_str(out, h->name);
        if (h->place.n)
            buf_printf(out, " at " STR_FMT, STR_ARG(h->place));
    }
    if (c->left_out)
        buf_printf(out, ", and %u more", c->left_out);
    return out->failed;
}
