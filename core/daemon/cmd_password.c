/* cmd_password.c - tern password: makes an entry of a password file. Layer: daemon.
 *
 * The password comes from standard input, never from the command line, which others can see.
 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "crypto/password_file.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/failure.h"

enum { SALT = 16 };

/* One line, without its end. -1 with *f. */
static int read_line(char *dst, size_t size, struct str *ret, struct failure *f)
{
    if (!fgets(dst, (int)size, stdin))
        return failure_set(f, EX_NOINPUT, "no password on standard input");

    struct str line = str_of(dst);
    if (line.n && line.p[line.n - 1] == '\n')
        line.n--;
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    if (line.n > PASSWORD_MAX)
        return failure_set(f, EX_DATAERR, "the password is longer than %d octets", PASSWORD_MAX);
    if (line.n == 0)
        return failure_set(f, EX_DATAERR, "the password is empty");
    *ret = line;
    return 0;
}

/* At a terminal it is asked for, twice, and not shown. */
static int ask(char *dst, size_t size, struct str *ret, struct failure *f)
{
    char again[PASSWORD_MAX + 3];
    struct termios shown, hidden;
    struct str second = STR_NONE;

    if (tcgetattr(STDIN_FILENO, &shown) < 0)
        return read_line(dst, size, ret, f);
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
    fputs("Password: ", stderr);
    int r = read_line(dst, size, ret, f);
    fputs("\nAgain: ", stderr);
    if (r == 0)
        r = read_line(again, sizeof(again), &second, f);
    fputc('\n', stderr);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    if (r == 0 && !secret_equal(*ret, second))
        r = failure_set(f, EX_DATAERR, "the two are not the same");
    secret_wipe(again, sizeof(again));
    return r;
}

static int print_entry(const char *user, struct str password, uint32_t iterations,
                       struct failure *f)
{
    uint8_t salt[SALT];
    struct buf out;

    if (getrandom(salt, sizeof(salt), 0) != sizeof(salt))
        return failure_set(f, EX_OSERR, "the system has no chance to give: %s", strerror(errno));
    buf_init(&out, 0);
    int r = password_make_scram(password, str_make(salt, sizeof(salt)), iterations, &out);
    if (r == 0)
        printf("%s%s" STR_FMT "\n", user ? user : "", user ? ":" : "", STR_ARG(buf_str(&out)));
    buf_done(&out);
    return r < 0 ? failure_set(f, EX_SOFTWARE, "cannot make the entry: %s", strerror(-r)) : 0;
}

/* The line that would be printed must be one that is read again. */
static int check_user(const char *user, struct failure *f)
{
    struct password_file *file = NULL;
    char why[PASSWORD_FILE_ERROR] = "", text[1024];
    unsigned line;
    bool good = strlen(user) < 512 && !strchr(user, ':') && !strchr(user, '\n') && *user != '#';

    if (good) {
        snprintf(text, sizeof(text), "%s:{PLAIN}x", user);
        good = password_file_parse(str_of(text), &file, &line, why) == 0 &&
               password_file_count(file) == 1;
        password_file_free(file);
    }
    return good ? 0
                : failure_set(f, EX_USAGE,
                              "'%s' cannot be a user in a password file: it takes 1 to 255 octets "
                              "of UTF-8, no colon, no '#' at its beginning",
                              user);
}

int cmd_password(int argc, char **argv)
{
    const char *user = NULL, *rounds = NULL;
    const struct arg_option options[] = {
        ARG_TEXT('u', "user", "NAME", &user, "print a whole line, NAME:entry"),
        ARG_TEXT(0, "iterations", "N", &rounds, "of PBKDF2, 4096 to 200000 (default 15000)"),
    };
    const struct arg_command command = {
        .name = "password",
        .usage = "password [-u NAME] [--iterations N]",
        .about =
            "Reads a password from standard input (one line) and prints an entry for a password "
            "file,\nfrom which the password cannot be read back.",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    char text[PASSWORD_MAX + 3];
    uint64_t iterations = SCRAM_USUAL_ITERATIONS;
    struct arg_list operands;
    struct failure f = { 0 };
    struct str password = STR_NONE;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    if (rounds && (str_to_u64(str_of(rounds), &iterations) < 0 ||
                   iterations < SCRAM_MIN_ITERATIONS || iterations > SCRAM_MAX_ITERATIONS)) {
        failure_set(&f, EX_USAGE, "--iterations takes a number from %d to %d", SCRAM_MIN_ITERATIONS,
                    SCRAM_MAX_ITERATIONS);
        return failure_print(&f);
    }
    int r = user ? check_user(user, &f) : 0;
    if (r == 0)
        r = isatty(STDIN_FILENO) ? ask(text, sizeof(text), &password, &f)
                                 : read_line(text, sizeof(text), &password, &f);
    if (r == 0)
        r = print_entry(user, password, (uint32_t)iterations, &f);
    secret_wipe(text, sizeof(text));
    return r < 0 ? failure_print(&f) : EX_OK;
}
