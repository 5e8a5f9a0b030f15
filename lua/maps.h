/* maps.h - files that policies look things up in, read again when they change (docs/maps.md).
 *
 * Layer: lua, internal. Two halves. A *map file* belongs to a policy_source: where it is, what its rows
 * may name, and the version that is current; the main thread changes that, and all VMs that are built
 * take it. A *map view* belongs to a VM: the version that this one looks into. When a file has changed,
 * its new version is read beside (in any thread), adopted by the source, and given to the VM of each
 * worker in that worker's thread (policy.h); so a look-up needs no lock.
 */
#ifndef TERN_LUA_MAPS_H
#define TERN_LUA_MAPS_H

#include "lua/source.h"
#include "lua/vm.h"
#include "mail/map.h"

struct map_file {
    struct list link; /* source->maps */
    char *name;       /* as written, and as errors show it */
    char *path;
    enum map_keys keys;
    struct list checks; /* only while the source is open */
    struct map *current;
    struct policy_file_state taken; /* of the file when it was read last */
    struct policy_file_state seen;  /* when it was looked at last */
    unsigned later;                 /* it is read again after so many looks; 0: when it changes */
};

struct map_view {
    struct list link; /* vm->maps */
    const struct map_file *file;
    struct map *map;  /* one reference */
    unsigned version; /* 1, 2, ... */
};

void map_files_free(struct policy_source *s);
void map_views_free(struct vm *vm);

/* The view of that file; reads it while the configuration is being loaded. 0; -ENOENT... with *err filled
 * in; -EBUSY: it is not open and may not be opened now (no error is filled in); -ENOMEM. */
int map_view_open(struct vm *vm, struct str name, enum map_keys keys, struct map_view **ret,
                  struct policy_error *err);
/* From now on the second field of each row must be one of the names: 0, -ENOMEM, or -EINVAL with *err
 * when one is not. Only while the source is open; later it is taken for done. */
int map_view_check(struct vm *vm, struct map_view *view, const struct str *names, size_t n,
                   struct policy_error *err);
#endif
