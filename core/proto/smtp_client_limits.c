/* smtp_client_limits.c - what a host told by LIMITS (RFC 9422) is what the client keeps to.
 *
 * Layer: proto. See smtp_client_impl.h. RCPTDOMAINMAX counts different domains over the whole session (section
 * 4.3), so their hashes are kept: two with the same hash would pass for one, which costs a refusal at worst.
 */
#include "base/hash.h"
#include "proto/smtp_client_impl.h"

static uint64_t domain_hash(struct str domain)
{
    char lower[256];
    size_t n = MIN(domain.n, sizeof(lower));

    for (size_t i = 0; i < n; i++)
        lower[i] = ascii_lower(domain.p[i]);
    return hash_bytes(lower, n);
}

/* Behind the last "@"; <postmaster> has none, and is one of its own. */
static struct str domain_of(struct str recipient)
{
    for (size_t i = recipient.n; i > 0; i--)
        if (recipient.p[i - 1] == '@')
            return str_from(recipient, i);
    return STR("");
}

static bool knows(const struct smtp_client *c, uint64_t hash)
{
    for (size_t i = 0; i < c->n_domains; i++)
        if (c->domains[i] == hash)
            return true;
    return false;
}

static bool domain_has_room(const struct smtp_client *c)
{
    return c->n_domains < MIN(c->caps.limits.rcptdomainmax, (uint32_t)CLIENT_MAX_DOMAINS);
}

bool smtp_client_admits_domain(const struct smtp_client *c, struct str domain)
{
    return c->caps.limits.rcptdomainmax == 0 || domain_has_room(c) || knows(c, domain_hash(domain));
}

static bool admit_domain(struct smtp_client *c, struct str domain)
{
    uint64_t hash;

    if (c->caps.limits.rcptdomainmax == 0)
        return true;
    hash = domain_hash(domain);
    if (knows(c, hash))
        return true;
    if (!c->domains)
        c->domains = calloc(CLIENT_MAX_DOMAINS, sizeof(*c->domains));
    if (!c->domains || !domain_has_room(c))
        return false;
    c->domains[c->n_domains++] = hash;
    return true;
}

bool smtp_client_admit(struct smtp_client *c, struct str recipient, size_t others)
{
    if (c->caps.limits.rcptmax && others >= c->caps.limits.rcptmax)
        return false;
    return admit_domain(c, domain_of(recipient));
}

bool smtp_client_spent(const struct smtp_client *c)
{
    return c->caps.limits.mailmax && c->mails >= c->caps.limits.mailmax;
}

int client_check_limits(struct smtp_client *c, const struct smtp_client_mail *mail)
{
    if (smtp_client_spent(c))
        return -EDQUOT;
    if (c->caps.limits.rcptmax && mail->n_recipients > c->caps.limits.rcptmax)
        return -EDQUOT;
    for (size_t i = 0; i < mail->n_recipients; i++)
        if (!admit_domain(c, domain_of(mail->recipients[i])))
            return -EDQUOT;
    return 0;
}
