/* snapshot.c - lifetime of a loaded configuration in one worker. See snapshot.h. */
#include "engine/snapshot.h"

struct snapshot *snapshot_new(uint64_t generation, struct settings *settings, struct hooks *hooks)
{
    struct snapshot *s = malloc(sizeof *s);
    if (!s)
        return NULL;
    *s = (struct snapshot){
        .refs = 1, .generation = generation, .settings = settings, .hooks = hooks
    };
    return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    s->refs++;
    return s;
}

struct snapshot *snapshot_unref(struct snapshot *s)
{
    if (s && --s->refs == 0) {
        if (s->hooks)
            s->hooks->free(s->hooks);
        settings_unref(s->settings);
        free(s);
    }
    return NULL;
}
