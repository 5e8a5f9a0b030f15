/* dane.h - what a host's TLSA records demand of its certificate, as one string of octets (RFC 6698, 7671,
 * 7672).
 *
 * Layer: proto. It goes from the look-up of hosts to the handshake, is copied as one piece, and two that demand
 * the same are equal octet for octet: records are kept in order, whatever the order of the answer.
 */
#ifndef TERN_PROTO_DANE_H
#define TERN_PROTO_DANE_H

#include "base/buf.h"
#include "proto/dns_message.h"

enum {
    DANE_MAX_RECORDS = 16, /* of one host */
    DANE_MAX_DATA = 4096,  /* of one record: whole certificates are larger only by accident */
    DANE_USAGE_TA = 2,
    DANE_USAGE_EE = 3,
};

struct dane_record {
    uint8_t usage, selector, matching;
    struct str data;
};

/* The parts, inside of the octets. */
struct dane {
    struct str base;   /* TLSA base domain: SNI, and the first name a certificate may have */
    struct str domain; /* next-hop domain: another name it may have; empty: none */
    struct str records;
};

/* Can a mail client use it (RFC 7672 §3.1: usages 2 and 3)? */
bool dane_usable(const struct dns_record *r);
/* Puts the usable records of a TLSA answer into *out, at most DANE_MAX_RECORDS. How many; 0: none is
 * usable, nothing was added; -ENOMEM. */
int dane_write(struct str base, struct str domain, const struct dns_answer *a, struct buf *out);
/* False: these are no such octets. */
bool dane_read(struct str octets, struct dane *ret);
/* Takes the next of the records off. False: the end. */
bool dane_take(struct str *records, struct dane_record *ret);
size_t dane_count(struct str octets);

#endif
