/* Domains and addresses: a normal form is one that stays what it is, of harmless bytes only. */
#include "mail/address.h"

static bool harmless(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ascii_alnum(s.p[i]) && !memchr("-_.", s.p[i], 3))
            return false;
    return str_is_ascii(s);
}

static void check_domain(struct str in)
{
    char dst[DOMAIN_TEXT], again[DOMAIN_TEXT];
    ptrdiff_t n = domain_normalize(in, dst, sizeof(dst));

    if (n < 0)
        return;
    CHECK(n > 0 && n < DOMAIN_TEXT && strlen(dst) == (size_t)n);
    CHECK(domain_normalize(str_of(dst), again, sizeof(again)) == n);
    CHECK(memcmp(dst, again, (size_t)n) == 0);
    CHECK(harmless(str_from(str_of(dst), *dst == '*')));
    CHECK(dst[n - 1] != '.');
}

static void check_address(struct str in)
{
    struct arena a;
    struct address addr, again;

    arena_init(&a, 0);
    if (address_parse(&a, in, &addr) == 0) {
        CHECK(str_eq(addr.text, in));
        CHECK(str_starts(addr.text, addr.local));
        CHECK(addr.domain.n == 0 || *addr.domain.p == '[' || harmless(addr.domain));
        struct smtp_mailbox m = { addr.local, addr.domain };
        CHECK(address_make(&a, &m, &again) == 0);
        CHECK(str_eq(addr.domain, again.domain) && str_eq(addr.local, again.local));
    }
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_domain(str_make(data, size));
    check_address(str_make(data, size));
    return 0;
}
