/* guard.c - see guard.h. Layer: spool. */
#include "spool/guard.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static _Thread_local sigjmp_buf *way_out;
static struct sigaction before;

static void on_sigbus(int signal)
{
    if (way_out)
        siglongjmp(*way_out, 1);
    /* Not ours: the instruction runs again, and this time it is what it was without us. */
    sigaction(signal, &before, NULL);
}

void guard_init(void)
{
    /* The signal is not blocked meanwhile, so no mask has to be kept, and a read costs no system call more. */
    struct sigaction a = { .sa_handler = on_sigbus, .sa_flags = SA_NODEFER }, now;

    sigemptyset(&a.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) < 0 || now.sa_handler == on_sigbus)
        return;
    before = now;
    sigaction(SIGBUS, &a, NULL);
}

int guard_run(int (*f)(void *arg), void *arg)
{
    sigjmp_buf here;

    if (sigsetjmp(here, 0)) {
        way_out = NULL;
        return -EIO;
    }
    way_out = &here;
    int r = f(arg);
    way_out = NULL;
    return r;
}
