/* mta_sts.h - what a domain says about TLS to its MX, by HTTPS: the TXT record and the policy of RFC 8461.
 *
 * Layer: proto. Pure: no I/O, no clock, no memory of its own. Slices point into what was given.
 */
#ifndef TERN_PROTO_MTA_STS_H
#define TERN_PROTO_MTA_STS_H

#include "base/buf.h"
#include "proto/dns_message.h"

enum {
    MTA_STS_MAX_TEXT = 64 * 1024, /* octets of a policy as it is fetched (§3.3); longer: none */
    MTA_STS_MAX_ID = 32,          /* §3.1 */
    MTA_STS_MAX_MX = 30,          /* more in one policy: refused, rather than half of it kept */
    MTA_STS_MAX_LINES =
        2048, /* octets of its lines that are kept, when they are not as we would write them */
    MTA_STS_MAX_AGE_S = 31557600, /* a year (§3.2); more is cut to that */
};

enum mta_sts_mode {
    MTA_STS_NONE,    /* the domain has no policy any more */
    MTA_STS_TESTING, /* failures are counted, mail goes all the same */
    MTA_STS_ENFORCE,
};
const char *mta_sts_mode_name(enum mta_sts_mode m); /* "none", "testing", "enforce" */

struct mta_sts_policy {
    enum mta_sts_mode mode;
    uint32_t max_age_s;
    size_t n_mx;
    struct str mx[MTA_STS_MAX_MX]; /* "mail.example.com" or "*.example.net" */
    struct str text; /* as it was fetched or kept, cut; empty: as mta_sts_lines writes it */
};

/* The id of the record among the answers for _mta-sts.DOMAIN (§3.1). False: there is none, or more than one, or it
 * is malformed: then the domain is one without MTA-STS. */
bool mta_sts_record(const struct dns_answer *txt, struct str *ret_id);

/* The text that https://mta-sts.DOMAIN/.well-known/mta-sts.txt gave (§3.2). 0; -EBADMSG, and *ret_why says what is
 * wrong with it, for logs. Fields that are not known, and second ones of the same name, are passed over. */
int mta_sts_parse(struct str text, struct mta_sts_policy *ret, const char **ret_why);

/* Is that MX one of the policy's (§4.1)? A-labels, any case, with or without a trailing dot. "*" stands for exactly
 * one label. */
bool mta_sts_allows(const struct mta_sts_policy *p, struct str mx);

/* What the domain has declared, in its own lines (RFC 8460 §4.5), each with '\n' behind it; made anew where they are not
 * known. Lines beyond `max` octets are left out, as wholes. 0 or the buffer's error. */
int mta_sts_lines(const struct mta_sts_policy *p, size_t max, struct buf *out);

/* As it is kept: with the id of the record it was fetched for. At most 8 KiB: lines that do not fit are not kept. 0 or
 * the buffer's error. */
int mta_sts_encode(struct str id, const struct mta_sts_policy *p, struct buf *out);
/* False: these are no such octets. */
bool mta_sts_decode(struct str octets, struct str *ret_id, struct mta_sts_policy *ret);

#endif
