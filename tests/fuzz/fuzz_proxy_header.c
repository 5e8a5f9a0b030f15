/* A PROXY header that says anything: whole and octet by octet it must mean the same, within its bounds,
 * and what was told must be addresses. */
#include "proto/proxy_header.h"

static int run(struct proxy_header *h, struct str all, size_t piece, size_t *ret_taken)
{
    int r = 0;

    proxy_header_init(h);
    *ret_taken = 0;
    while (r == 0 && *ret_taken < all.n) {
        size_t taken;
        r = proxy_header_feed(h, str_first(str_from(all, *ret_taken), piece), &taken);
        CHECK(taken > 0);
        *ret_taken += taken;
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str all = str_make(data, size);
    struct proxy_header whole, cut;
    size_t n, n_cut;

    int r = run(&whole, all, size, &n);
    CHECK(run(&cut, all, 1, &n_cut) == r && n_cut == n && n <= PROXY_V2_FIXED + PROXY_REST_MAX);
    CHECK(whole.told == cut.told && strcmp(whole.why, cut.why) == 0);
    CHECK(r == 1 || r == 0 || (r == -EBADMSG && !whole.told && whole.why[0]));
    if (r == 1 && whole.told) {
        CHECK(net_addr_eq(&whole.client, &cut.client) && net_addr_eq(&whole.server, &cut.server));
        CHECK(whole.client.family == NET_IPV4 || whole.client.family == NET_IPV6);
        CHECK(whole.server.family == NET_IPV4 || whole.server.family == NET_IPV6);
    }
    return 0;
}
