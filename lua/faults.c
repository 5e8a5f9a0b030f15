/* faults.c - hooks that failed: told once for each place, counted, and turned into a result.
 *
 * Layer: lua. Interface: policies.h.
 */
#include "base/hash.h"
#include "lua/policies.h"

enum { MAX_FAULTS = 256, PLACE_IN_MESSAGE = 200 };

/* One place where hooks fail: the hook, and the message up to its first ": " (or its beginning). */
struct fault {
    uint64_t place;
    uint64_t count;
};

static uint64_t place_of(enum hook h, struct str message)
{
    ptrdiff_t colon = str_find(message, STR(": "));
    struct str place = str_first(message, colon > 0 ? (size_t)colon : PLACE_IN_MESSAGE);

    return hash_stable_more((uint64_t)h + 1, place.n ? place.p : "", place.n);
}

/* Counts it; how often it has come so far. The last entry stands for all beyond the table. */
static uint64_t count_fault(struct policies *p, uint64_t place)
{
    if (!p->faults && !(p->faults = calloc(MAX_FAULTS, sizeof(*p->faults))))
        return 1;
    for (unsigned i = 0; i < p->n_faults; i++)
        if (p->faults[i].place == place)
            return ++p->faults[i].count;
    if (p->n_faults == MAX_FAULTS)
        return ++p->faults[MAX_FAULTS - 1].count;
    p->faults[p->n_faults++] = (struct fault){ .place = place, .count = 1 };
    return 1;
}

/* 1, 10, 100, ... */
static bool worth_telling(uint64_t n)
{
    while (n % 10 == 0 && n)
        n /= 10;
    return n == 1;
}

bool fault_report(struct policies *p, enum hook h, struct str policy, struct str message,
                  struct str traceback, struct hook_result *result)
{
    uint64_t count = count_fault(p, place_of(h, message));
    struct port_journal *journal = p->ports->journal;

    if (worth_telling(count) && journal)
        journal->record(journal, EVENT(EVENT_ERROR, "policy_error", F_STRZ("hook", hook_name(h)),
                                       F_STR("policy", policy), F_STR("message", message),
                                       F_INT("count", (int64_t)count),
                                       F_STR("traceback", count == 1 ? traceback : STR_NONE)));
    if (p->observer && p->observer->step)
        p->observer->step(
            p->observer,
            &(struct policy_step){
                .hook = h, .policy = policy, .outcome = message, .asked = true, .failed = true });
    if (p->on_error == ON_ERROR_IGNORE)
        return true;
    result->verdict = VERDICT_FAILED;
    if (p->on_error == ON_ERROR_REJECT && !p->vm->starved) /* never for good for want of memory */
        result->reply = REPLY(554, ENH(5, 3, 0), "policy error");
    else
        result->reply = REPLY(451, ENH(4, 3, 0), "policy error");
    result->decided_by = arena_str(&result->arena, policy);
    return false;
}

void fault_free(struct policies *p)
{
    free(p->faults);
    p->faults = NULL;
}
