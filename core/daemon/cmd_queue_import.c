/* cmd_queue_import.c - tern queue import DIR: messages from files to the running router.
 *
 * Layer: daemon. Interface: cmd_queue.h. Each NAME.json is an envelope, and NAME.eml its message. What the router has
 * accepted, which it says when it is on its disk, is renamed to NAME.json.done and NAME.eml.done before the next
 * one is begun: an import that was broken off is run again. The order is that of the folder. One message is under way
 * at a time, and of it one piece in memory.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/cmd_queue.h"
#include "daemon/columns.h"
#include "daemon/load.h"

enum { ENVELOPE_MAX = 8 * 1024 * 1024, NAME_TEXT = 256, EXIT_INTERRUPTED = 130 };

struct importer {
    struct client client;
    const char *path;
    int dir;
    bool quiet; /* only the sum, as JSON */
    uint64_t accepted, refused, octets;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = 1;
}

/* ---- the envelope ------------------------------------------------------------------------------ */

/* The folder may be somebody else's: what is no file is neither followed nor waited for. */
static FILE *open_file(struct importer *im, const char *name, struct failure *f)
{
    int fd = openat(im->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
        close(fd);
        failure_set(f, EX_NOINPUT, "%s/%s is no regular file", im->path, name);
        return NULL;
    }
    if (fd < 0 && errno == ELOOP) {
        failure_set(
            f, EX_NOINPUT,
            "%s/%s is a symbolic link, which an import does not follow: put the file itself "
            "there",
            im->path, name);
        return NULL;
    }
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file && fd >= 0)
        close(fd);
    if (!file)
        failure_set(f, EX_NOINPUT, "cannot read %s/%s: %s", im->path, name, strerror(errno));
    return file;
}

static json_t *read_envelope(struct importer *im, const char *name, struct failure *f)
{
    json_error_t error = { .line = 0 };
    FILE *file = open_file(im, name, f);
    struct stat st;
    json_t *o;

    if (!file)
        return NULL;
    if (fstat(fileno(file), &st) == 0 && st.st_size > ENVELOPE_MAX) {
        fclose(file);
        failure_set(f, EX_DATAERR, "%s/%s is larger than any envelope (%d octets)", im->path, name,
                    ENVELOPE_MAX);
        return NULL;
    }
    o = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    fclose(file);
    if (json_is_object(o))
        return o;
    if (o)
        failure_set(f, EX_DATAERR, "the envelope must be a JSON object");
    else
        failure_set(f, EX_DATAERR, "line %d, column %d: %s", error.line, error.column, error.text);
    json_decref(o);
    return NULL;
}

/* In one line, with what the router takes; of a recipient only the address and what its sender wants to be
 * told. Hand-written ones may be addresses alone. */
static char *envelope_line(const json_t *o, size_t *ret_length)
{
    static const char *const names[] = {
        "sender",   "ret",          "envid",      "eight_bit", "binary",
        "smtputf8", "client",       "helo",       "identity",  "service",
        "tls",      "notification", "requiretls", "changes",   "changes_left_out",
        "priority", "hold_for",     "hold_until", "deliver_by"
    };
    json_t *line = json_object(), *list = json_array(), *value;
    size_t i;

    for (i = 0; i < ARRAY_LEN(names); i++)
        if ((value = json_object_get(o, names[i])))
            json_object_set(line, names[i], value);
    json_array_foreach(json_object_get(o, "recipients"), i, value)
    {
        json_t *r = json_object();
        if (json_is_object(value)) {
            json_object_set(r, "address", json_object_get(value, "address"));
            json_object_set(r, "notify", json_object_get(value, "notify"));
            json_object_set(r, "orcpt", json_object_get(value, "orcpt"));
        } else {
            json_object_set(r, "address", value);
        }
        json_array_append_new(list, r);
    }
    json_object_set_new(line, "recipients", list);
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (text) {
        *ret_length = strlen(text) + 1;
        text[*ret_length - 1] = '\n'; /* in place of the NUL */
    }
    return text;
}

/* ---- the content ------------------------------------------------------------------------------- */

/* Lines that end in LF alone are sent with CRLF, but those of binary mail: how long is it then? */
static int measure(FILE *file, bool binary, uint64_t *ret_length, bool *ret_crlf)
{
    char piece[16 * 1024], last = '\0';
    uint64_t bare = 0, length = 0;
    size_t n;

    while ((n = fread(piece, 1, sizeof(piece), file)) > 0) {
        length += n;
        for (size_t i = 0; i < n; i++) {
            bare += !binary && piece[i] == '\n' && last != '\r';
            last = piece[i];
        }
    }
    if (ferror(file) || fseek(file, 0, SEEK_SET) < 0)
        return -EIO;
    *ret_length = length + bare;
    *ret_crlf = bare > 0;
    return 0;
}

/* ---- one message ------------------------------------------------------------------------------- */

static int rename_done(struct importer *im, const char *name, struct failure *f)
{
    char done[NAME_TEXT + 8];

    snprintf(done, sizeof(done), "%s.done", name);
    if (renameat(im->dir, name, im->dir, done) < 0)
        return failure_set(f, EX_CANTCREAT,
                           "the router has it, but %s/%s cannot be renamed to %s: %s; move it away "
                           "before the next import",
                           im->path, name, done, strerror(errno));
    return 0;
}

/* The envelope first: without it the message is not looked at again. */
static int mark_done(struct importer *im, const char *json, const char *eml, struct failure *f)
{
    if (rename_done(im, json, f) < 0 || rename_done(im, eml, f) < 0)
        return -1;
    if (fsync(im->dir) < 0)
        return failure_set(f, EX_IOERR, "cannot sync %s: %s", im->path, strerror(errno));
    return 0;
}

/* Hands one over. *ret_id: the router's name for it, MSGID_TEXT bytes. */
static int hand_over(struct importer *im, const char *json, const char *eml, char *ret_id,
                     struct failure *f)
{
    uint64_t length;
    size_t head;
    bool crlf;
    json_t *o = read_envelope(im, json, f), *answer;

    if (!o)
        return -1;
    bool binary = json_is_true(json_object_get(o, "binary"));
    AUTO_FREE char *line = envelope_line(o, &head);
    json_decref(o);
    FILE *file = line ? open_file(im, eml, f) : NULL;
    if (!file)
        return line ? -1 : queue_no_memory(f);
    int r = measure(file, binary, &length, &crlf);
    if (r < 0)
        failure_set(f, EX_IOERR, "cannot read %s/%s", im->path, eml);
    else
        r = client_upload(&im->client, "/v1/messages", str_make(line, head), file, crlf, length,
                          &answer, f);
    fclose(file);
    if (r < 0)
        return -1;
    str_copy(str_of(json_text_of(answer, "id")), ret_id, 32);
    json_decref(answer);
    im->octets += length;
    return 0;
}

/* What concerns this message alone does not end the import. */
static bool goes_on(const struct failure *f)
{
    return f->exit_code == EX_DATAERR || f->exit_code == EX_NOINPUT || f->exit_code == EX_CONFIG;
}

static int one(struct importer *im, const char *json, struct failure *f)
{
    char eml[NAME_TEXT], shown[NAME_TEXT], id[32];

    snprintf(eml, sizeof(eml), "%.*s.eml", (int)(strlen(json) - 5), json);
    if (hand_over(im, json, eml, id, f) == 0) {
        im->accepted++;
        if (!im->quiet) {
            str_copy(str_of(json), shown, sizeof(shown));
            failure_clean(shown, "");
            printf("%s: %s\n", shown, id);
        }
        return mark_done(im, json, eml, f);
    }
    struct failure why = *f;
    failure_set(f, why.exit_code, "%s/%s: %.1024s", im->path, json, why.text);
    if (!goes_on(f))
        return -1;
    im->refused++;
    failure_clean(f->text, ""); /* a name with a line end in it is no second line */
    failure_print(f);
    *f = (struct failure){ 0 };
    return 0;
}

/* ---- all -------------------------------------------------------------------------------------- */

static bool is_envelope(const char *name)
{
    size_t n = strlen(name);

    return *name != '.' && n > 5 && n < NAME_TEXT && strcmp(name + n - 5, ".json") == 0;
}

static int import_all(struct importer *im, struct failure *f)
{
    int fd = dup(im->dir);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int r = 0;

    if (!dir)
        return failure_set(f, EX_OSERR, "cannot read %s: %s", im->path, strerror(errno));
    while (r == 0 && !interrupted && (entry = readdir(dir)))
        if (is_envelope(entry->d_name))
            r = one(im, entry->d_name, f);
    closedir(dir);
    return r;
}

static void print_sum(const struct importer *im)
{
    char size[16];

    if (im->quiet) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:I}", "folder", im->path, "accepted",
                              (json_int_t)im->accepted, "refused", (json_int_t)im->refused,
                              "octets", (json_int_t)im->octets);
        client_print_json(o);
        json_decref(o);
        return;
    }
    printf("%llu message%s accepted (%s)", (unsigned long long)im->accepted,
           im->accepted == 1 ? "" : "s", size_text((int64_t)im->octets, size));
    if (im->refused)
        printf("; %llu not: see above; they are where they were", (unsigned long long)im->refused);
    printf("\n");
}

int queue_import(struct queue_command_line *q, struct failure *f)
{
    struct importer im = { .client = q->client, .dir = -1 };
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };

    if (q->operands.n != 2 || queue_conditions(q))
        return failure_set(f, EX_USAGE, "from where? tern queue import DIR");
    im.path = q->operands.v[1];
    im.dir = open(im.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (im.dir < 0)
        return failure_set(f, EX_NOINPUT, "cannot read the folder %s: %s", im.path,
                           strerror(errno));
    AUTO_FREE char *socket = NULL;
    if (!im.client.socket && load_control_path(im.client.config, &socket, f) < 0) {
        close(im.dir);
        return -1;
    }
    if (socket) /* the configuration is read once */
        im.client.socket = socket;
    sigaction(SIGINT, &action, NULL); /* the message that is under way is brought to its end */
    im.quiet = q->client.json;
    im.client.json = false; /* errors are told one by one */
    int r = import_all(&im, f);
    close(im.dir);
    if (r == 0 || im.accepted)
        print_sum(&im);
    if (r < 0)
        return r;
    return interrupted ? EXIT_INTERRUPTED : im.refused ? EX_DATAERR : EX_OK;
}
