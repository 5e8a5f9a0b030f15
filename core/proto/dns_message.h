/* dns_message.h - reading DNS answers (RFC 1035, 7505, 6698, 2782): bounded and strict.
 *
 * Layer: proto. An answer is one heap block, immutable once made and reference counted (atomically:
 * caches share it between tasks). Names are lower case A-labels without a trailing dot; the root is
 * "". A byte in a name that is not printable is written \DDD, a dot or backslash inside a label \.
 * and \\: no name holds a control byte.
 */
#ifndef TERN_PROTO_DNS_MESSAGE_H
#define TERN_PROTO_DNS_MESSAGE_H

#include <stdatomic.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "base/str.h"

enum dns_type {
    DNS_A = 1,
    DNS_NS = 2,
    DNS_CNAME = 5,
    DNS_PTR = 12,
    DNS_MX = 15,
    DNS_TXT = 16,
    DNS_AAAA = 28,
    DNS_SRV = 33,
    DNS_TLSA = 52,
};
/* "MX" and so on; NULL when unknown. And back: 0 when unknown. */
const char *dns_type_name(enum dns_type t);
enum dns_type dns_type_from_name(struct str s);

enum dns_status { DNS_OK, DNS_NODATA, DNS_NXDOMAIN, DNS_SERVFAIL, DNS_TIMEOUT };
/* "ok", "nodata", "nxdomain", "servfail", "timeout": as policies see them. */
const char *dns_status_name(enum dns_status s);

enum {
    DNS_MAX_RECORDS = 256, /* further ones are dropped and `truncated` is set */
    DNS_MAX_CNAMES = 8,
    DNS_MAX_NAME = 255,
};

struct dns_record {
    struct str name;                   /* MX exchange, PTR, SRV target, CNAME; TXT: text joined;
                                    TLSA: certificate data */
    uint16_t preference;               /* MX; SRV priority */
    uint16_t weight, port;             /* SRV */
    uint8_t usage, selector, matching; /* TLSA */
    struct net_addr addr;              /* A, AAAA (port 0) */
};

struct dns_answer {
    atomic_uint refs;
    enum dns_type type;
    enum dns_status status;
    bool authentic; /* AD bit (only as good as the resolver) */
    bool truncated; /* more records than DNS_MAX_RECORDS, or the TC bit */
    bool dangling;  /* NODATA, but only because the message ends with a CNAME: it says nothing of
                       `canonical`, which is to be asked for */
    uint8_t cnames; /* followed */
    uint32_t ttl;   /* smallest of the records; for negative answers that of the SOA; 0: unknown */
    struct str question;  /* the name asked for */
    struct str canonical; /* after CNAMEs; == question without */
    size_t n;
    struct dns_record *records;
};

/* Parses a whole message that answers (qname, qtype); one of the types above, else -EINVAL. Follows
 * the CNAME chain in the answer section, at most DNS_MAX_CNAMES (beyond, or a loop: SERVFAIL), but
 * for questions about CNAME itself. Rcodes other than 0 and NXDOMAIN are SERVFAIL, and so is a
 * truncated message without a record that was asked for. IPv4-mapped AAAA become IPv4. 0 and *ret
 * with one reference; -EBADMSG (not a DNS message, compression loop, wrong question), -ENOMEM. */
int dns_message_parse(const void *bytes, size_t n, struct str qname, enum dns_type qtype,
                      struct dns_answer **ret);
/* An answer without a message: a timeout, or one of the simulation. Records (their slices too) are
 * copied, at most DNS_MAX_RECORDS; names become lower case without a trailing dot. NULL: out of
 * memory. */
struct dns_answer *dns_answer_make(struct str qname, enum dns_type qtype, enum dns_status status,
                                   const struct dns_record *records, size_t n, uint32_t ttl);
/* The answer to a question that led to it by CNAMEs: its own records and status, of another name. ttl and
 * authentic: of the way there. NULL: out of memory. */
struct dns_answer *dns_answer_alias(const struct dns_answer *a, struct str question, uint32_t ttl,
                                    bool authentic);
struct dns_answer *dns_answer_ref(struct dns_answer *a);
struct dns_answer *dns_answer_unref(struct dns_answer *a); /* returns NULL; NULL is fine */

#endif
