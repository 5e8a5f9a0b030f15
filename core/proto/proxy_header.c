/* proxy_header.c - see proxy_header.h. Layer: proto. */
#include "proto/proxy_header.h"

static const char signature[12] = { '\r', '\n', '\r', '\n', '\0', '\r',
                                    '\n', 'Q',  'U',  'I',  'T',  '\n' };
static const char begin_v1[6] = { 'P', 'R', 'O', 'X', 'Y', ' ' };

void proxy_header_init(struct proxy_header *h)
{
    *h = (struct proxy_header){ .why = "" };
}

static int bad(struct proxy_header *h, const char *why)
{
    h->told = false;
    h->why = why;
    return -EBADMSG;
}

/* ---- version 1: one line ---- */

/* "0" to "65535", without leading zeros. */
static bool read_port(struct str s, uint16_t *ret)
{
    uint32_t n = 0;

    if (s.n == 0 || s.n > 5 || (s.n > 1 && *s.p == '0'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        n = n * 10 + (uint32_t)(s.p[i] - '0');
    }
    *ret = (uint16_t)n;
    return n <= UINT16_MAX;
}

/* The family is as written: ::ffff:192.0.2.1 is IPv6 here, and the client IPv4 to us. */
static bool read_ip(struct str s, bool ipv6, struct net_addr *ret)
{
    return (str_chr(s, ':') >= 0) == ipv6 && net_addr_parse_ip(s, ret) == 0;
}

static int read_line(struct proxy_header *h, struct str line)
{
    struct str rest = str_from(line, sizeof(begin_v1)), word[5] = { STR_NONE };

    h->version = 1;
    if (str_eq(rest, STR("UNKNOWN")) || str_starts(rest, STR("UNKNOWN ")))
        return 1; /* what follows is to be passed over */
    for (size_t i = 0; i < ARRAY_LEN(word); i++)
        if (!str_cut(&rest, ' ', &word[i]))
            return bad(h, "PROXY line without all its words");
    bool ipv6 = str_eq(word[0], STR("TCP6"));
    if (!ipv6 && !str_eq(word[0], STR("TCP4")))
        return bad(h, "PROXY line of another protocol");
    if (rest.p)
        return bad(h, "PROXY line with more words");
    if (!read_ip(word[1], ipv6, &h->client) || !read_ip(word[2], ipv6, &h->server))
        return bad(h, "PROXY line with a bad address");
    if (!read_port(word[3], &h->client.port) || !read_port(word[4], &h->server.port))
        return bad(h, "PROXY line with a bad port");
    h->told = true;
    return 1;
}

/* ---- version 2: binary ---- */

static void take_ip(const char *p, size_t n, struct net_addr *ret)
{
    static const char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '\xff', '\xff' };
    bool ipv4 = n == 4;

    *ret = (struct net_addr){ 0 };
    if (n == 16 && memcmp(p, mapped, sizeof(mapped)) == 0) {
        p += sizeof(mapped);
        ipv4 = true;
    }
    ret->family = ipv4 ? NET_IPV4 : NET_IPV6;
    memcpy(ret->ip, p, ipv4 ? 4 : 16);
}

static uint16_t number(const char *p)
{
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

/* Octets of addresses that the family has: 0 where none are looked at; -1: no such family. */
static int addresses_of(unsigned char family)
{
    switch (family) {
    case 0x00: return 0;  /* UNSPEC */
    case 0x11: return 12; /* TCP over IPv4 */
    case 0x21: return PROXY_V2_ADDRESSES;
    case 0x31: return 0; /* a Unix stream: a path tells no client */
    default: return -1;
    }
}

static bool is_local(const struct proxy_header *h)
{
    return (h->buf[12] & 0x0f) == 0;
}

/* The first 16 octets have come. 0: go on. */
static int read_fixed(struct proxy_header *h)
{
    unsigned char version = (unsigned char)h->buf[12], family = (unsigned char)h->buf[13];
    uint32_t rest = number(h->buf + 14);
    int least = addresses_of(family);

    h->version = 2;
    if (version >> 4 != 2)
        return bad(h, "PROXY header of an unknown version");
    if ((version & 0x0f) > 1)
        return bad(h, "PROXY header with an unknown command");
    if (rest > PROXY_REST_MAX)
        return bad(h, "PROXY header too long");
    if (is_local(h)) /* family and addresses are to be passed over */
        least = 0;
    if (least < 0)
        return bad(h, "PROXY header of another protocol");
    if (rest < (uint32_t)least)
        return bad(h, "PROXY header without all its addresses");
    h->skip = rest - (uint32_t)least;
    return 0;
}

static uint32_t wanted_v2(const struct proxy_header *h)
{
    int addresses = is_local(h) ? 0 : addresses_of((unsigned char)h->buf[13]);

    return PROXY_V2_FIXED + (uint32_t)addresses;
}

static void read_addresses(struct proxy_header *h)
{
    size_t n = wanted_v2(h) - PROXY_V2_FIXED, size = n == 12 ? 4 : 16;
    const char *p = h->buf + PROXY_V2_FIXED;

    if (n == 0)
        return;
    take_ip(p, size, &h->client);
    take_ip(p + size, size, &h->server);
    h->client.port = number(p + 2 * size);
    h->server.port = number(p + 2 * size + 2);
    h->told = true;
}

/* ---- octet by octet ---- */

static int take_octet_v2(struct proxy_header *h)
{
    int r = 0;

    if (h->n < PROXY_V2_FIXED)
        return 0;
    if (h->n == PROXY_V2_FIXED)
        r = read_fixed(h);
    if (r < 0 || h->n < wanted_v2(h))
        return r;
    read_addresses(h);
    return h->skip == 0;
}

static int take_octet_v1(struct proxy_header *h)
{
    char last = h->buf[h->n - 1];

    if (h->n < sizeof(begin_v1))
        return 0;
    if (last == '\n')
        return h->buf[h->n - 2] == '\r' ? read_line(h, str_make(h->buf, h->n - 2))
                                        : bad(h, "PROXY line that ends in bare LF");
    if (last == '\0' || (h->n > 1 && h->buf[h->n - 2] == '\r'))
        return bad(h, "PROXY line with a control octet");
    return h->n == PROXY_V1_MAX ? bad(h, "PROXY line too long") : 0;
}

/* Whatever it is, it is known by its first octets. */
static int take_octet(struct proxy_header *h, char c)
{
    bool v2 = (h->n ? h->buf[0] : c) == signature[0];
    const char *begin = v2 ? signature : begin_v1;
    size_t size = v2 ? sizeof(signature) : sizeof(begin_v1);

    if (h->n < size && c != begin[h->n])
        return bad(h, "no PROXY header");
    h->buf[h->n++] = c;
    return v2 ? take_octet_v2(h) : take_octet_v1(h);
}

int proxy_header_feed(struct proxy_header *h, struct str bytes, size_t *ret_taken)
{
    size_t i = 0;
    int r = 0;

    while (r == 0 && i < bytes.n) {
        if (h->skip && h->n >= PROXY_V2_FIXED && h->n == wanted_v2(h)) {
            size_t n = MIN(bytes.n - i, (size_t)h->skip);
            h->skip -= (uint32_t)n;
            i += n;
            r = h->skip == 0;
        } else {
            r = take_octet(h, bytes.p[i++]);
        }
    }
    *ret_taken = i;
    if (r == 1 && h->told && net_addr_is_any(&h->client))
        return bad(h, "PROXY header without a client");
    return r;
}
