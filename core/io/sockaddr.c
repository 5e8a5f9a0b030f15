/* sockaddr.c - socket addresses, interfaces, the system's words for errors.
 *
 * Layer: io. Interface: sockaddr.h.
 */
#include "io/sockaddr.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

int sockaddr_from_net(const struct net_addr *a, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    switch (a->family) {
    case NET_IPV4: {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->ip, 4);
        return sizeof(*in);
    }
    case NET_IPV6: {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(a->port);
        memcpy(&in6->sin6_addr, a->ip, 16);
        return sizeof(*in6);
    }
    case NET_UNIX: {
        struct sockaddr_un *un = (struct sockaddr_un *)ret;
        un->sun_family = AF_UNIX;
        _Static_assert(sizeof(un->sun_path) >= sizeof(a->path), "a path fits");
        memcpy(un->sun_path, a->path, strnlen(a->path, sizeof(a->path)));
        return sizeof(*un);
    }
    default: return -EAFNOSUPPORT;
    }
}

void sockaddr_to_net(const struct sockaddr_storage *s, socklen_t len, struct net_addr *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (len < sizeof(s->ss_family))
        return;
    if (s->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)s;
        ret->family = NET_IPV4;
        ret->port = ntohs(in->sin_port);
        memcpy(ret->ip, &in->sin_addr, 4);
    } else if (s->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)s;
        const uint8_t *ip = in6->sin6_addr.s6_addr;
        bool mapped = memcmp(ip, mapped_prefix, sizeof(mapped_prefix)) == 0;
        ret->family = mapped ? NET_IPV4 : NET_IPV6;
        ret->port = ntohs(in6->sin6_port);
        memcpy(ret->ip, mapped ? ip + sizeof(mapped_prefix) : ip, mapped ? 4 : 16);
    } else if (s->ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)s;
        size_t head = offsetof(struct sockaddr_un, sun_path);
        ret->family = NET_UNIX;
        if (len > head)
            memcpy(ret->path, un->sun_path, MIN(len - head, sizeof(ret->path) - 1));
    }
}

void sockaddr_local(int fd, struct net_addr *ret)
{
    struct sockaddr_storage s;
    socklen_t len = sizeof(s);

    memset(ret, 0, sizeof(*ret));
    if (getsockname(fd, (struct sockaddr *)&s, &len) == 0)
        sockaddr_to_net(&s, MIN(len, (socklen_t)sizeof(s)), ret);
}

int io_local_addresses(struct net_addr *ret, size_t max)
{
    struct ifaddrs *all;
    size_t n = 0;

    if (getifaddrs(&all) < 0)
        return -errno;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        struct sockaddr_storage s = { 0 };
        struct net_addr a;

        if (!i->ifa_addr)
            continue;
        int family = i->ifa_addr->sa_family;
        if (family != AF_INET && family != AF_INET6)
            continue;
        size_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(&s, i->ifa_addr, len);
        sockaddr_to_net(&s, (socklen_t)len, &a);
        a.port = 0;
        if (n < max)
            ret[n] = a;
        n++;
    }
    freeifaddrs(all);
    return (int)n;
}

const char *io_error_text(int error, char *dst)
{
    const char *text = strerrordesc_np(error < 0 ? -error : error);

    if (text)
        str_copy(str_of(text), dst, IO_ERROR_TEXT);
    else
        snprintf(dst, IO_ERROR_TEXT, "error %d", error);
    /* "Connection refused" -> "connection refused", but "RPC ..." and "I/O error" stay. */
    if (dst[0] && dst[1] >= 'a' && dst[1] <= 'z')
        dst[0] = ascii_lower(dst[0]);
    return dst;
}
