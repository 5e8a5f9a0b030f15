/* snapshot.h - one loaded configuration with its policies, as one worker uses it.
 *
 * Layer: engine. Sessions, transactions and deliveries hold a reference to the snapshot they began
 * with; a reload swaps the engine's pointer, and the old one is freed with its last user. Counted
 * without atomics: it never leaves its worker (settings inside are shared, and counted atomically).
 */
#ifndef TERN_ENGINE_SNAPSHOT_H
#define TERN_ENGINE_SNAPSHOT_H

#include "engine/hook.h"
#include "engine/settings.h"

struct snapshot {
    unsigned refs;
    uint64_t generation; /* 1, 2, ... per process */
    struct settings *settings;
    struct hooks *hooks;
};

/* Takes over one reference of settings, and the hooks. NULL: out of memory (nothing is taken). */
struct snapshot *snapshot_new(uint64_t generation, struct settings *settings, struct hooks *hooks);
struct snapshot *snapshot_ref(struct snapshot *s);
struct snapshot *snapshot_unref(struct snapshot *s); /* returns NULL */
/* What a recipient's route was chosen by: when it differs, the route is chosen anew (H7). */
static inline uint64_t snapshot_fingerprint(const struct snapshot *s)
{
    const uint64_t *data = s->hooks->data_fingerprint;
    return s->settings->fingerprint + (data ? *data : 0);
}

#endif
