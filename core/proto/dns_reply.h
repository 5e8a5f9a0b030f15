/* dns_reply.h - the server's side of DNS, as far as a demonstration needs one: reading a question, writing
 * its answer (RFC 1035 §4.1). No compression, no EDNS.
 *
 * Layer: proto. Values; nothing is kept.
 */
#ifndef TERN_PROTO_DNS_REPLY_H
#define TERN_PROTO_DNS_REPLY_H

#include "base/buf.h"
#include "proto/dns_message.h"

enum { DNS_UDP_MAX = 512 }; /* octets of a message by UDP, RFC 1035 §4.2.1 */

struct dns_question {
    uint16_t id;
    bool recursion;              /* desired */
    enum dns_type type;          /* may be one that we do not know */
    char name[DNS_MAX_NAME + 1]; /* lower case, without trailing dot */
};

/* -EBADMSG: not a query of class IN with one question, or a label with other than printable ASCII. */
int dns_question_parse(const void *bytes, size_t n, struct dns_question *ret);
/* Appends a whole message. Records that do not fit into max octets are left out (TC). 0, -ENOMEM. */
int dns_reply_write(const struct dns_question *q, const struct dns_answer *a, size_t max,
                    struct buf *out);

#endif
