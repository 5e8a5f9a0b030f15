/* Addresses from text: whatever parses has a text form that parses to the same again. */
#include "base/netaddr.h"

static void check_addr(struct str in)
{
    struct net_addr a, again;
    char text[NET_ADDR_TEXT];

    if (net_addr_parse(in, 25, &a) == 0) {
        CHECK(net_addr_parse(str_of(net_addr_text(&a, text)), 99, &again) == 0);
        CHECK(net_addr_eq(&a, &again));
    }
    if (net_addr_parse_ip(in, &a) == 0) {
        CHECK(net_addr_parse_ip(str_of(net_addr_ip_text(&a, text)), &again) == 0);
        CHECK(net_addr_same_ip(&a, &again));
    }
}

static void check_cidr(struct str in)
{
    struct net_cidr c;

    if (net_cidr_parse(in, &c) == 0) {
        CHECK(c.bits <= (c.base.family == NET_IPV4 ? 32 : 128));
        CHECK(net_cidr_contains(&c, &c.base));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_addr(str_make(data, size));
    check_cidr(str_make(data, size));
    return 0;
}
