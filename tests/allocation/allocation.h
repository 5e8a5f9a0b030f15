/* allocation.h - memory that runs out at a chosen allocation of the router.
 *
 * malloc and its like are defined by this program and hand on to the system's (or the sanitizer's). What counts, and may
 * fail, is what the router asks for: an allocation belongs to whoever stands nearest on the stack, the router (core/engine,
 * lua) or the simulated world (core/sim); core/base, core/proto and core/mail serve both. An allocation of neither, such as
 * one of the test itself or of a library, never fails. What ports of the world answer to the router counts as one
 * allocation each, where the port may say -ENOMEM.
 *
 * tests/CMakeLists.txt puts the code of the two into sections of their own, by which they are told apart. Frames are followed
 * by their pointers: all that is linked here is compiled with -fno-omit-frame-pointer.
 *
 * Not under the thread sanitizer, whose start does not bear a malloc of ours: tests/CMakeLists.txt leaves them out.
 */
#ifndef TERN_TESTS_ALLOCATION_H
#define TERN_TESTS_ALLOCATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Which of the router's allocations fail, counted from 1 since allocation_arm. */
struct allocation_faults {
    unsigned long at;     /* this one; 0: none */
    unsigned long more;   /* and so many after it */
    uint32_t per_million; /* chance of every one, besides */
    uint64_t seed;        /* of that chance */
};

/* Once, from main: nothing above that frame is looked at. Checks that the sections are what they should be. */
void allocation_init(void);
void allocation_arm(const struct allocation_faults *f);
/* Returns how many were asked for since it was armed. */
unsigned long allocation_disarm(void);
/* How many of them failed. */
unsigned long allocation_failed(void);
/* Blocks of the whole program that are not freed. */
size_t allocation_live(void);
/* Shows on stderr where the failures were: the first so many of each arming. */
void allocation_show(unsigned n);

#endif
