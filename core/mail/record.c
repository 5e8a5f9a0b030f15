/* record.c - pieces that the records of message.c and route.c share.
 *
 * Layer: mail. Interface: record.h.
 */
#include "mail/record.h"

static size_t ip_length(uint8_t family)
{
    return family == NET_IPV4 ? 4 : family == NET_IPV6 ? 16 : 0;
}

int record_add_addr(struct buf *out, const struct net_addr *a)
{
    buf_add_u8(out, a->family);
    buf_add_u16(out, a->port);
    if (a->family == NET_UNIX)
        return buf_add_lstr(out, str_make(a->path, strnlen(a->path, sizeof(a->path) - 1)));
    return buf_add(out, a->ip, ip_length(a->family));
}

static bool take_path(struct str *in, struct net_addr *a)
{
    struct str path;

    if (!take_lstr(in, &path) || path.n >= sizeof(a->path) || str_chr(path, '\0') >= 0)
        return false;
    return str_copy(path, a->path, sizeof(a->path));
}

bool record_take_addr(struct str *in, struct net_addr *ret)
{
    struct net_addr a = { 0 };
    struct str ip;

    if (!take_u8(in, &a.family) || a.family > NET_UNIX || !take_u16(in, &a.port))
        return false;
    if (a.family == NET_UNIX) {
        if (!take_path(in, &a))
            return false;
    } else {
        if (!take_bytes(in, ip_length(a.family), &ip))
            return false;
        if (ip.n)
            memcpy(a.ip, ip.p, ip.n);
    }
    *ret = a;
    return true;
}

bool record_take_i64(struct str *in, int64_t *ret)
{
    uint64_t v;

    if (!take_u64(in, &v))
        return false;
    *ret = (int64_t)v;
    return true;
}
