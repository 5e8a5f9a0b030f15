/* source.h - all text of one load: the configuration file, the modules it required, secrets.
 *
 * Layer: lua. Reference counted atomically and shared by the threads that build a VM from it.
 * While it is open (the load) one thread adds to it; once closed it never changes.
 */
#ifndef TERN_LUA_SOURCE_H
#define TERN_LUA_SOURCE_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "lua/files.h"
#include "lua/policy.h"

enum source_kind { SOURCE_CONFIG, SOURCE_MODULE, SOURCE_SECRET };

struct source_text {
    struct list link;
    enum source_kind kind;
    char *name;  /* "policies.backup", as for require; "tern.lua"; of the secret */
    char *chunk; /* "policies/backup.lua": as errors show it */
    char *path;  /* where it was read; NULL: not from a file */
    struct buf bytes;
};

struct policy_source {
    atomic_uint refs;
    bool closed;
    struct list texts;
    struct list maps; /* map_file.link: lua/maps.h */
    char *config_path;
    char *dir;    /* of the configuration file, without a final '/'; "." */
    char **paths; /* further folders; NULL ends */
    const struct policy_files *files;
    size_t memory;
    unsigned load_ms, cpus;
    uint64_t fingerprint;
};

struct policy_source *source_new(const char *config_path, const struct policy_options *options);
void source_close(struct policy_source *s); /* computes the fingerprint */

struct source_text *source_find(const struct policy_source *s, enum source_kind kind,
                                const char *name);
/* By the name that errors show; NULL: not one of ours (built in, or a secret). */
const struct source_text *source_by_chunk(const struct policy_source *s, const char *chunk);

/* Reads `path` and keeps it. 0, or -errno of files->read. Only while open. */
int source_read(struct policy_source *s, enum source_kind kind, const char *name, const char *chunk,
                const char *path, struct source_text **ret);
/* Keeps bytes that are in memory (modules of the binary). -ENOMEM. */
int source_add(struct policy_source *s, enum source_kind kind, const char *name, const char *chunk,
               struct str bytes, struct source_text **ret);

#endif
