/* credentials.c - who we are to a host that asks for it. Layer: mail. Interface: credentials.h. */
#include "mail/credentials.h"

#include <stdio.h>

#include "base/err.h"
#include "base/hash.h"

enum { HASH_TEXT = 16 };

/* The lengths stand in front, so that no other credentials give the same bytes. */
static uint64_t fingerprint(const struct credentials *c)
{
    struct {
        uint32_t user_n, password_n, mechanisms, allow_clear;
        char text[CREDENTIALS_MAX_USER + CREDENTIALS_MAX_PASSWORD];
    } all = { (uint32_t)c->user.n, (uint32_t)c->password.n, c->mechanisms, c->allow_clear, { 0 } };

    memcpy(all.text, c->user.p, c->user.n);
    memcpy(all.text + c->user.n, c->password.p, c->password.n);
    uint64_t h = hash_bytes(&all, sizeof(all));
    explicit_bzero(&all, sizeof(all));
    return h;
}

struct credentials *credentials_new(struct str user, struct str password, uint32_t mechanisms,
                                    bool allow_clear)
{
    CHECK(user.n > 0 && user.n <= CREDENTIALS_MAX_USER && password.n <= CREDENTIALS_MAX_PASSWORD);
    size_t name = user.n + 1 + HASH_TEXT;
    struct credentials *c = calloc(1, sizeof(*c) + name + 1 + password.n);
    if (!c)
        return NULL;
    char *text = (char *)(c + 1), *secret = text + name + 1;
    memcpy(text, user.p, user.n);
    if (password.n)
        memcpy(secret, password.p, password.n);
    c->refs = 1;
    c->user = str_make(text, user.n);
    c->password = str_make(secret, password.n);
    c->mechanisms = mechanisms;
    c->allow_clear = allow_clear;
    snprintf(text + user.n, HASH_TEXT + 2, "/%016llx", (unsigned long long)fingerprint(c));
    c->name = str_make(text, name);
    return c;
}

struct credentials *credentials_ref(struct credentials *c)
{
    if (c)
        c->refs++;
    return c;
}

struct credentials *credentials_unref(struct credentials *c)
{
    if (c && --c->refs == 0) {
        explicit_bzero((char *)c->password.p, c->password.n);
        free(c);
    }
    return NULL;
}

struct str credentials_user(struct str name)
{
    if (name.n > HASH_TEXT + 1 && name.p[name.n - HASH_TEXT - 1] == '/')
        name.n -= HASH_TEXT + 1;
    return name;
}
