/* err.c - the end of a process that found itself broken.
 *
 * Layer: base. Interface: err.h.
 */
#include "base/err.h"

#include <stdio.h>

_Noreturn void check_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "tern: bug: check failed: %s at %s:%d\n", condition, file, line);
    abort();
}
