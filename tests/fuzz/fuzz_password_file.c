/* Password files with anything in them: what is taken can be found again, what is refused says why. */
#include "crypto/password_file.h"

static void check_decoys(const struct password_file *f, struct str user)
{
    struct password_entry e;

    CHECK(password_file_decoy(f, user, PASSWORD_WANT_ANY, &e) == (password_file_count(f) > 0));
    if (password_file_decoy(f, user, PASSWORD_WANT_PLAIN, &e))
        CHECK(e.kind == PASSWORD_PLAIN);
    if (password_file_decoy(f, user, PASSWORD_WANT_SCRAM, &e))
        CHECK(e.kind != PASSWORD_CRYPT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[PASSWORD_FILE_ERROR] = "";
    struct str text = str_make(data, size), line, user;
    struct password_file *f = NULL;
    struct password_entry e;
    unsigned number = 0;

    if (password_file_parse(text, &f, &number, why) < 0) {
        CHECK(!f && number > 0 && why[0]);
        return 0;
    }
    size_t found = 0;
    while (str_cut(&text, '\n', &line)) {
        if (line.n == 0 || *line.p == '#' || str_trim(line).n == 0 || !str_cut(&line, ':', &user))
            continue;
        CHECK(password_file_find(f, user, &e));
        CHECK(e.kind != PASSWORD_SCRAM_SHA_256 ||
              (e.salt_n > 0 && e.salt_n <= SCRAM_MAX_SALT && e.iterations >= SCRAM_MIN_ITERATIONS &&
               e.iterations <= SCRAM_MAX_ITERATIONS));
        CHECK(e.kind == PASSWORD_SCRAM_SHA_256 || e.text.n > 0);
        found++;
        check_decoys(f, user);
    }
    CHECK(found == password_file_count(f));
    password_file_free(f);
    return 0;
}
