/* failure.c - why something was not done. Layer: daemon. Interface: failure.h. */
#include "daemon/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <sysexits.h>

int failure_set(struct failure *f, int exit_code, const char *fmt, ...)
{
    va_list ap;

    f->exit_code = exit_code;
    f->detail[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
    return -1;
}

int exit_code_of(int error)
{
    switch (error < 0 ? -error : error) {
    case 0: return EX_OK;
    case EACCES:
    case EPERM: return EX_NOPERM;
    case EADDRINUSE: return EX_UNAVAILABLE;
    case EADDRNOTAVAIL: return EX_CONFIG;
    case ENOENT:
    case ENOTDIR:
    case EROFS:
    case ENOSPC: return EX_CANTCREAT;
    case ENOMEM: return EX_SOFTWARE;
    case EIO: return EX_IOERR;
    default: return EX_OSERR;
    }
}

int failure_print(const struct failure *f)
{
    fprintf(stderr, "tern: %s\n", f->text);
    if (f->detail[0])
        fprintf(stderr, "%s\n", f->detail);
    return f->exit_code;
}
