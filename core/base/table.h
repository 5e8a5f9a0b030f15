/* table.h - uthash, with our keyed hash (strangers choose keys) and without its exit() when memory is
 * short: after HASH_ADD an element whose hh.tbl is NULL was not added.
 *
 * Layer: base. Include this, never <uthash.h>. Elements are embedded in and owned by the caller's structs.
 */
#ifndef TERN_BASE_TABLE_H
#define TERN_BASE_TABLE_H

#include "base/hash.h"

#define HASH_NONFATAL_OOM              1
#define HASH_FUNCTION(key, len, hashv) ((hashv) = (unsigned)hash_bytes((key), (len)))
#include <uthash.h>

#endif
