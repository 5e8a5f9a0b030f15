/* guard.h - a page of the map that the disk cannot give is an error of that read, not the end of the process.
 *
 * Layer: spool. Reads go through the map, so what read(2) would tell as EIO comes as SIGBUS in the thread that
 * touches the page. Whoever reads does it in a function that guard_run calls: at SIGBUS that is left where it is. So
 * it may hold nothing that somebody must give back: no lock, no write transaction. (A cursor that LMDB was just making
 * is lost; they are kept, so that is once for each table.)
 */
#ifndef TERN_SPOOL_GUARD_H
#define TERN_SPOOL_GUARD_H

/* Takes SIGBUS for the process; outside of guard_run it does what it did before. When a spool is opened. */
void guard_init(void);
/* What f returns; -EIO: a page could not be read. Not within another one. */
int guard_run(int (*f)(void *arg), void *arg);

#endif
