/* units.h - durations, sizes and dates in the forms that operators and RFC 5322 write.
 * Layer: base. */
#ifndef TERN_BASE_UNITS_H
#define TERN_BASE_UNITS_H

#include "base/err.h"
#include "base/str.h"

/* "500ms", "30s", "15m", "2h", "5d", "1w", "90" (seconds) -> milliseconds. -EINVAL, -ERANGE. */
int duration_parse(struct str s, int64_t *ret_ms);
/* "50M", "10K", "1G", "1T", "4096": powers of 1024 -> bytes. -EINVAL, -ERANGE. */
int size_parse(struct str s, uint64_t *ret_bytes);
/* The two largest units, "2h15m", "4.2s", "350ms", "0s", cut off, not rounded; dst has 32 bytes.
 * Returns dst. */
const char *duration_text(int64_t ms, char *dst);

/* Times outside of the years 0000 to 9999 become the first or last moment of them. */
/* RFC 5322 date-time in UTC, "Mon, 23 Nov 2026 17:35:39 +0000"; dst has 40 bytes. Returns dst. */
const char *date_rfc5322(int64_t wall_ms, char *dst);
/* "2026-11-23T17:35:39.123Z"; dst has 32 bytes. Returns dst. */
const char *date_iso8601(int64_t wall_ms, char *dst);

#endif
