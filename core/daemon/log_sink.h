/* log_sink.h - where the log goes: one file (or stdout) for all threads, written by a thread of its own.
 *
 * Layer: daemon. Who logs hands over whole lines and never waits for the file: a disk or a pipe that
 * stands still stops no worker. Lines wait in memory (at most LOG_SINK_WAITING bytes); when that
 * is full further ones are dropped and counted, and as soon as there is room the log says how many
 * ("log_lost"). What is handed over together is written with one write.
 */
#ifndef TERN_DAEMON_LOG_SINK_H
#define TERN_DAEMON_LOG_SINK_H

#include "base/event.h"

enum { LOG_SINK_WAITING = 8 * 1024 * 1024, LOG_SINK_ERROR_TEXT = 512 };

struct log_sink;

struct log_sink_stats {
    uint64_t lines, lost;
};

/* where: "stdout", or a file, made (0640) when it is not there and appended to. -errno and a text that
 * says what to do. Starts the thread. */
int log_sink_open(struct str where, struct log_sink **ret, char *error) MUST_USE;
/* Writes what waits, for at most 2 s. NULL is fine; returns NULL. */
struct log_sink *log_sink_close(struct log_sink *s);

/* From any thread. lines: whole ones, n of them. */
void log_sink_add(struct log_sink *s, struct str lines, size_t n);
/* Lines that could not be made. From any thread. */
void log_sink_lost(struct log_sink *s, size_t n);
/* Opens `where` (again): after rotation, or at a reload. On failure all stays as it was. */
int log_sink_reopen(struct log_sink *s, struct str where, char *error) MUST_USE;
void log_sink_get_stats(struct log_sink *s, struct log_sink_stats *ret);

#endif
