/* password_file.c - users and their entries. Layer: crypto. Interface: password_file.h. */
#include "crypto/password_file.h"

#include <stdio.h>

#include "base/table.h"

struct user {
    UT_hash_handle hh;
    struct str name;
    struct password_entry entry;
};

struct password_file {
    char *text; /* what names and entries point to */
    size_t text_n;
    struct user *users; /* in the order of lines */
    size_t n, n_plain, n_scram;
    struct user *table;
};

struct password_file *password_file_free(struct password_file *f)
{
    if (!f)
        return NULL;
    HASH_CLEAR(hh, f->table);
    secret_wipe(f->text, f->text_n);
    secret_wipe(f->users, f->n * sizeof(*f->users));
    free(f->text);
    free(f->users);
    free(f);
    return NULL;
}

static int refuse(char *ret_why, const char *why)
{
    snprintf(ret_why, PASSWORD_FILE_ERROR, "%s", why);
    return -EINVAL;
}

static bool name_ok(struct str name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < 32 || name.p[i] == 127)
            return false;
    return name.n > 0 && name.n <= PASSWORD_FILE_MAX_USER && str_is_utf8(name);
}

static int add_user(struct password_file *f, struct user *u, char *ret_why)
{
    struct user *same;

    HASH_FIND(hh, f->table, u->name.p, u->name.n, same);
    if (same)
        return refuse(ret_why, "the user stands in an earlier line, too");
    HASH_ADD_KEYPTR(hh, f->table, u->name.p, u->name.n, u);
    if (!u->hh.tbl)
        return -ENOMEM;
    f->n++;
    f->n_plain += u->entry.kind == PASSWORD_PLAIN;
    f->n_scram += u->entry.kind != PASSWORD_CRYPT;
    return 0;
}

static int take_line(struct password_file *f, struct str line, char *ret_why)
{
    struct user *u = &f->users[f->n];
    const char *why = "";

    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    if (line.n == 0 || *line.p == '#' || str_trim(line).n == 0)
        return 0;
    if (str_chr(line, ':') < 0)
        return refuse(ret_why, "not user:entry");
    if (!str_cut(&line, ':', &u->name) || !name_ok(u->name))
        return refuse(ret_why, "the user's name must be 1 to 255 octets of UTF-8 without control "
                               "characters");
    if (password_parse(line, &u->entry, &why) < 0)
        return refuse(ret_why, why);
    return add_user(f, u, ret_why);
}

static size_t count_lines(struct str text)
{
    size_t n = 1;

    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == '\n';
    return n;
}

int password_file_parse(struct str text, struct password_file **ret, unsigned *ret_line,
                        char *ret_why)
{
    struct password_file *f = calloc(1, sizeof(*f));
    struct str rest, line;
    unsigned number = 0;
    int r = 0;

    if (!f)
        return -ENOMEM;
    f->text = str_dup(text);
    f->text_n = text.n;
    f->users = calloc(count_lines(text), sizeof(*f->users));
    if (!f->text || !f->users) {
        password_file_free(f);
        return -ENOMEM;
    }
    rest = str_make(f->text, text.n);
    while (r == 0 && str_cut(&rest, '\n', &line)) {
        number++;
        r = take_line(f, line, ret_why);
    }
    if (r < 0) {
        *ret_line = number;
        password_file_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

size_t password_file_count(const struct password_file *f)
{
    return f->n;
}

bool password_file_all_plain(const struct password_file *f)
{
    return f->n > 0 && f->n_plain == f->n;
}

bool password_file_all_scram(const struct password_file *f)
{
    return f->n > 0 && f->n_scram == f->n;
}

bool password_file_find(const struct password_file *f, struct str user, struct password_entry *ret)
{
    struct user *u;

    if (user.n == 0)
        return false;
    HASH_FIND(hh, f->table, user.p, user.n, u);
    if (u)
        *ret = u->entry;
    return u != NULL;
}

static bool serves(const struct password_entry *e, enum password_want want)
{
    if (want == PASSWORD_WANT_PLAIN)
        return e->kind == PASSWORD_PLAIN;
    return want == PASSWORD_WANT_ANY || e->kind != PASSWORD_CRYPT;
}

bool password_file_decoy(const struct password_file *f, struct str user, enum password_want want,
                         struct password_entry *ret)
{
    size_t from = f->n ? (size_t)(hash_bytes(user.p, user.n) % f->n) : 0;

    for (size_t i = 0; i < f->n; i++) {
        const struct password_entry *e = &f->users[(from + i) % f->n].entry;
        if (serves(e, want)) {
            *ret = *e;
            return true;
        }
    }
    return false;
}
