/* record.h - pieces that the records of message.c and route.c share. Layer: mail, internal. */
#ifndef TERN_MAIL_RECORD_H
#define TERN_MAIL_RECORD_H

#include "base/buf.h"
#include "base/netaddr.h"

/* Family, port and address or path: 3, 7 or 19 bytes, or as long as the path is. */
int record_add_addr(struct buf *out, const struct net_addr *a);
/* False for what record_add_addr does not write. */
bool record_take_addr(struct str *in, struct net_addr *ret);
bool record_take_i64(struct str *in, int64_t *ret);

#endif
