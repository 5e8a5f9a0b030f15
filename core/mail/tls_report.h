/* tls_report.h - how sessions with the MX of one domain fared with TLS, in one day: the counts of RFC 8460.
 *
 * Layer: mail. A value, owned by who made it. Bounded: TLS_REPORT_POLICIES policies, TLS_REPORT_DETAILS kinds of
 * failures of each, TLS_REPORT_MAX octets when it is encoded. What does not fit, or finds no memory, is counted without
 * its details: a policy's by the policy's type, a failure's by the result alone. So the sums are always right.
 *
 * Domains and hosts are A-labels in lower case.
 */
#ifndef TERN_MAIL_TLS_REPORT_H
#define TERN_MAIL_TLS_REPORT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/netaddr.h"
#include "proto/mta_sts.h"

enum {
    TLS_REPORT_POLICIES = 8,
    TLS_REPORT_DETAILS = 16,
    TLS_REPORT_STRINGS =
        2048, /* octets of a policy's strings; those beyond are left out, as wholes */
    TLS_REPORT_REASON = 120, /* octets of a reason; longer ones are cut */
    TLS_REPORT_MAX = 8192,
};

/* Numbers are in the records: new ones at the end. */
enum tls_policy_type { TLS_POLICY_NONE, TLS_POLICY_TLSA, TLS_POLICY_STS };
enum { TLS_POLICY_TYPES = 3 };
const char *tls_policy_type_name(enum tls_policy_type t); /* "no-policy-found", "tlsa", "sts" */

/* §4.3. There is no dane-required: no policy here demands TLSA records of hosts that have none. */
enum tls_result {
    TLS_RESULT_SUCCESS,
    TLS_RESULT_NO_STARTTLS,   /* starttls-not-supported */
    TLS_RESULT_HOST_MISMATCH, /* certificate-host-mismatch */
    TLS_RESULT_EXPIRED,       /* certificate-expired */
    TLS_RESULT_NOT_TRUSTED,   /* certificate-not-trusted */
    TLS_RESULT_VALIDATION,    /* validation-failure */
    TLS_RESULT_TLSA_INVALID,
    TLS_RESULT_DNSSEC_INVALID,
    TLS_RESULT_STS_FETCH, /* sts-policy-fetch-error */
    TLS_RESULT_STS_INVALID,
    TLS_RESULT_STS_WEBPKI,
};
enum { TLS_RESULTS = 11 };
const char *tls_result_name(enum tls_result r); /* "success", else as in §4.3 */

/* Each string has a '\n' behind it. */
struct tls_policy {
    enum tls_policy_type type;
    struct str domain; /* the Policy Domain (§1.1): of TLSA the base domain; empty: not one alone */
    struct str strings; /* "version: STSv1\nmode: enforce\n...", "3 1 1 0a...\n" */
    struct str mx;      /* of sts: its patterns */
};

struct tls_session {
    enum tls_result result;
    struct net_addr sending, receiving; /* NET_NONE: not known */
    struct str mx;                      /* empty: not known */
    struct str reason;                  /* of a failure, for people; empty: nothing to be said */
};

/* ---- to be read --------------------------------------------------------------------------------- */

struct tls_failure {
    enum tls_result result;
    uint64_t count;
    uint8_t families[2];                /* NET_NONE, NET_IPV4, NET_IPV6: */
    uint8_t sending[16], receiving[16]; /* as in struct net_addr */
    struct str mx, reason;
};

struct tls_policy_count {
    struct tls_policy policy;
    uint64_t successes;
    uint64_t other[TLS_RESULTS]; /* failures that are not in the list */
    struct tls_failure *failures;
    size_t n, cap;
};

struct tls_report {
    struct arena arena;
    struct tls_policy_count rest[TLS_POLICY_TYPES]; /* of policies that are not in the list */
    struct tls_policy_count *policies;
    size_t n, cap;
    size_t octets;    /* encoded */
    uint32_t domains; /* for who keeps many of these; not looked at here */
};

/* Numbers i from 0: the policies of the list, then those of `rest` under which something was counted. NULL: the
 * end. */
const struct tls_policy_count *tls_report_policy(const struct tls_report *r, size_t i);
uint64_t tls_policy_failures(const struct tls_policy_count *p);
struct net_addr tls_failure_sending(const struct tls_failure *f);
struct net_addr tls_failure_receiving(const struct tls_failure *f);

/* ---- counting ----------------------------------------------------------------------------------- */

struct tls_report *tls_report_new(void);                  /* NULL: out of memory */
struct tls_report *tls_report_free(struct tls_report *r); /* returns NULL; NULL is fine */
/* Copies what it keeps. */
void tls_report_add(struct tls_report *r, const struct tls_policy *p, const struct tls_session *s);
void tls_report_merge(struct tls_report *into, const struct tls_report *from);

/* At most TLS_REPORT_MAX octets. 0 or the buffer's error. */
int tls_report_encode(const struct tls_report *r, struct buf *out);
/* -EBADMSG: these are no such octets; -ENOMEM. */
int tls_report_decode(struct str in, struct tls_report **ret);

/* ---- policies as strings ------------------------------------------------------------------------ */

/* The text lives in the arena. Strings that do not fit, or find no memory, are left out. */
struct tls_policy tls_policy_of_sts(struct arena *a, struct str domain,
                                    const struct mta_sts_policy *p);
/* octets: proto/dane.h. */
struct tls_policy tls_policy_of_tlsa(struct arena *a, struct str octets);

#endif
