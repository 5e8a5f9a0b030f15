/* failure.c - why something was not done. Layer: daemon. Interface: failure.h. */
#include "daemon/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
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

/* What is said may hold the names of files, or what stands in them, and is read at a terminal. */
void failure_clean(char *text, const char *kept)
{
    for (char *p = text; *p; p++)
        if (((unsigned char)*p < ' ' || *p == '\x7f') && !strchr(kept, *p))
            *p = '?';
}

int failure_print(const struct failure *f)
{
    struct failure shown = *f;

    failure_clean(shown.text, "\n\t");
    failure_clean(shown.detail, "\n\t");
    fprintf(stderr, "tern: %s\n", shown.text);
    if (shown.detail[0])
        fprintf(stderr, "%s\n", shown.detail);
    return f->exit_code;
}
