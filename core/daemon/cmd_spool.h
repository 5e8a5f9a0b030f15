/* cmd_spool.h - what the forms of `tern spool` share. Layer: daemon. */
#ifndef TERN_DAEMON_CMD_SPOOL_H
#define TERN_DAEMON_CMD_SPOOL_H

#include <jansson.h>

#include "daemon/control_client.h"
#include "spool/spool.h"

struct spool_command_line {
    struct client client;
    const char *folder; /* --spool; NULL: as the configuration says */
    const char *to;     /* copy */
    bool yes, messages;
};

/* The folder's path, to be freed; -1 with *f. */
int spool_folder_of(const struct spool_command_line *l, char **ret, struct failure *f) MUST_USE;
/* spool_open_readonly, with the exit codes of cmd.h. */
int spool_open_for_tool(const char *path, struct spool **ret, struct failure *f) MUST_USE;
int spool_open_failed(int error, const char *why, struct failure *f);

/* Each returns the exit code. */
int spool_command_check(const struct spool_command_line *l);
int spool_command_stats(const struct spool_command_line *l);
int spool_command_repair(const struct spool_command_line *l);
int spool_command_copy(const struct spool_command_line *l);

/* As GET /v1/spool answers it. sums: of all queues. */
json_t *spool_json(const char *path, const struct spool_stats *st, const struct spool_queue *sums);

#endif
