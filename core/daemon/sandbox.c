/* sandbox.c - what the router confines itself to. Layer: daemon. Interface: sandbox.h.
 *
 * A rule of Landlock belongs to a file or folder itself, not to its name. Files that are replaced by new ones of
 * the same name (certificates, maps, policies, the log) are therefore allowed by their folder, unless that is a
 * folder of the system's such as /etc, of which nobody would say that it is the router's.
 */
#include "daemon/sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/landlock.h"
#include "daemon/syscalls.h"

enum { GRANTS_MAX = 256, TOLD_MAX = 512 };

struct grant {
    char *path; /* real */
    bool folder;
    dev_t dev;
    ino_t ino;
    unsigned may;
};

struct sandbox {
    struct policy_files files; /* first: read by reloads */
    char user[IDENTITY_NAME];
    bool stays_root, wanted;
    int landlock; /* its version; 0: nothing is confined by it */
    bool syscalls;
    const char *no_landlock, *no_syscalls; /* why not, when wanted */
    struct grant grants[GRANTS_MAX];
    size_t n_grants;
    int set;                /* while rules are added */
    int own_proc;           /* keeps /proc/self what it is: see allow_system */
    char outside[PATH_MAX]; /* what the last reload could not read */
    char text[64];

    struct io_watch *watch;
    struct journal *journal;
    uint64_t n_refused;
    bool told[TOLD_MAX]; /* by number of the call */
};

/* ---- what is allowed -------------------------------------------------------------------------- */

static const char *const system_folders[] = {
    "/",    "/bin",  "/boot", "/dev", "/etc",  "/home", "/lib", "/lib64", "/media", "/mnt",
    "/opt", "/proc", "/root", "/run", "/sbin", "/srv",  "/sys", "/tmp",   "/usr",   "/var",
};

static bool is_system_folder(const char *real)
{
    for (size_t i = 0; i < ARRAY_LEN(system_folders); i++)
        if (strcmp(real, system_folders[i]) == 0)
            return true;
    return false;
}

static int too_many(struct failure *f)
{
    return failure_set(f, EX_CONFIG,
                       "the configuration names files in more than %d folders, which is more than "
                       "the sandbox holds: put them together, or set sandbox = false",
                       GRANTS_MAX);
}

/* A real path. What is not there is passed over: nothing of it can be needed. */
static int grant(struct sandbox *s, const char *real, unsigned may, struct failure *f)
{
    struct stat sb;

    if (!s->landlock || stat(real, &sb) < 0)
        return 0;
    for (size_t i = 0; i < s->n_grants; i++)
        if (strcmp(s->grants[i].path, real) == 0 && (s->grants[i].may & may) == may)
            return 0;
    if (s->n_grants == GRANTS_MAX)
        return too_many(f);
    int r = landlock_allow(s->set, s->landlock, real, may);
    if (r == -ENOENT || r == -EACCES)
        return 0;
    char *path = r == 0 ? strdup(real) : NULL;
    if (!path)
        return failure_set(f, EX_OSERR, "cannot make the sandbox: %s: %s", real,
                           strerror(r ? -r : ENOMEM));
    s->grants[s->n_grants++] = (struct grant){
        .path = path, .folder = S_ISDIR(sb.st_mode), .dev = sb.st_dev, .ino = sb.st_ino, .may = may
    };
    return 0;
}

/* Of a file that may not be there yet: its folder's real path, and the name within. */
static bool split(const char *path, char folder[PATH_MAX], const char **ret_name)
{
    char text[PATH_MAX];

    if (!str_copy(str_of(path), text, sizeof(text)))
        return false;
    char *slash = strrchr(text, '/');
    *ret_name = slash ? path + (slash - text) + 1 : path;
    if (slash)
        slash[slash == text ? 1 : 0] = '\0';
    return realpath(slash ? text : ".", folder) != NULL;
}

/* The folder of a file, by its name and where a symbolic link leads; else the file alone. */
static int grant_around(struct sandbox *s, const char *path, unsigned may, struct failure *f)
{
    char real[PATH_MAX], folder[PATH_MAX];
    const char *name;

    for (int i = 0; i < 2; i++) {
        const char *at = i == 0 ? path : realpath(path, real);
        if (!at || !split(at, folder, &name))
            continue;
        if (!is_system_folder(folder)) {
            if (grant(s, folder, may, f) < 0)
                return -1;
        } else if (realpath(at, real) && grant(s, real, may, f) < 0) {
            return -1;
        }
    }
    return 0;
}

static int grant_text(struct sandbox *s, struct str path, bool around, unsigned may,
                      struct failure *f)
{
    AUTO_FREE char *text = str_dup(path);
    char real[PATH_MAX];

    if (!text)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    if (!*text)
        return 0;
    if (around)
        return grant_around(s, text, may, f);
    return realpath(text, real) ? grant(s, real, may, f) : 0;
}

/* The folder itself, even when it is the system's: the log in /var/log, a socket in /run. */
static int grant_folder_of(struct sandbox *s, struct str path, unsigned may, struct failure *f)
{
    AUTO_FREE char *text = str_dup(path);
    char folder[PATH_MAX];
    const char *name;

    if (!text)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    return split(text, folder, &name) ? grant(s, folder, may, f) : 0;
}

static int allow_system(struct sandbox *s, struct failure *f)
{
    static const char *const read[] = {
        /* names and time */
        "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/services",
        "/etc/localtime", "/usr/share/zoneinfo", "/run/systemd/resolve", "/etc/group",
        /* whom to trust */
        "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/usr/lib/ssl", "/usr/share/ca-certificates",
        "/usr/local/share/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
        "/etc/crypto-policies",
        /* what libraries load late, and how many processors there are */
        "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/sys/devices/system/cpu",
        "/dev/urandom", "/dev/zero", "/proc/self/exe", /* with it the sanitizers tell lines */
    };
    const char *const trust[] = { X509_get_default_cert_dir(), X509_get_default_cert_file(),
                                  getenv(X509_get_default_cert_dir_env()),
                                  getenv(X509_get_default_cert_file_env()) };
    char real[PATH_MAX];

    for (size_t i = 0; i < ARRAY_LEN(read); i++)
        if (realpath(read[i], real) && grant(s, real, LANDLOCK_MAY_READ, f) < 0)
            return -1;
    for (size_t i = 0; i < ARRAY_LEN(trust); i++)
        if (trust[i] && realpath(trust[i], real) && grant(s, real, LANDLOCK_MAY_READ, f) < 0)
            return -1;
    if (grant(s, "/dev/null", LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE, f) < 0)
        return -1;
    /* The kernel may forget what stands in /proc, and make it anew, without the rule: not while it is open. */
    s->own_proc = open("/proc/self", O_PATH | O_CLOEXEC);
    return realpath("/proc/self", real) ? grant(s, real, LANDLOCK_MAY_READ, f) : 0;
}

/* What of the settings is read, and its key. */
static const struct {
    const char *key;
    size_t at;
} read_files[] = {
    { "tls.cert", offsetof(struct settings, tls_cert) },
    { "tls.key", offsetof(struct settings, tls_key) },
    { "tls.ca", offsetof(struct settings, tls_ca) },
    { "tls.client_ca", offsetof(struct settings, tls_client_ca) },
    { "auth.passwords", offsetof(struct settings, auth.passwords) },
};

/* The i-th file that is read, and its key; a path may be empty. False: there are no more. */
static bool file_of(const struct settings *set, size_t i, struct str *ret_path,
                    const char **ret_key)
{
    if (i < ARRAY_LEN(read_files)) {
        *ret_path = *(const struct str *)(const void *)((const char *)set + read_files[i].at);
        *ret_key = read_files[i].key;
        return true;
    }
    i -= ARRAY_LEN(read_files);
    if (i < 2 * set->n_certificates) {
        const struct certificate_settings *c = &set->certificates[i / 2];
        *ret_path = i % 2 ? c->key : c->cert;
        *ret_key = "tls.certificates";
        return true;
    }
    i -= 2 * set->n_certificates;
    if (i < 2 * set->n_own_certificates) {
        const struct own_certificate_settings *c = &set->own_certificates[i / 2];
        *ret_path = i % 2 ? c->key : c->cert;
        *ret_key = i % 2 ? "key" : "certificate";
        return true;
    }
    i -= 2 * set->n_own_certificates;
    if (i >= set->n_listen)
        return false;
    *ret_path = set->listen[i].client_ca;
    *ret_key = "client_ca";
    return true;
}

static bool logs_to_file(const struct settings *set)
{
    return !str_eq(set->log, STR("stdout"));
}

enum {
    MAY_SPOOL = LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE | LANDLOCK_MAY_MAKE | LANDLOCK_MAY_REMOVE |
                LANDLOCK_MAY_SOCKETS,
    MAY_LOG = LANDLOCK_MAY_WRITE | LANDLOCK_MAY_MAKE,
    MAY_SOCKET = LANDLOCK_MAY_SOCKETS | LANDLOCK_MAY_REMOVE,
};

/* The spool is made here, before nothing can be made beside it; who opens it says why that failed. */
static int allow_spool(struct sandbox *s, const struct settings *set, struct failure *f)
{
    AUTO_FREE char *path = str_dup(set->spool);

    if (!path)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    (void)!mkdir(path, 0700);
    return grant_text(s, set->spool, false, MAY_SPOOL, f);
}

static int allow_settings(struct sandbox *s, const struct settings *set, struct failure *f)
{
    struct str path;
    const char *key;

    for (size_t i = 0; file_of(set, i, &path, &key); i++)
        if (grant_text(s, path, true, LANDLOCK_MAY_READ, f) < 0)
            return -1;
    for (size_t i = 0; i < set->n_listen; i++)
        if (set->listen[i].addr.family == NET_UNIX &&
            grant_folder_of(s, str_of(set->listen[i].addr.path), MAY_SOCKET, f) < 0)
            return -1;
    if (logs_to_file(set) && grant_folder_of(s, set->log, MAY_LOG, f) < 0)
        return -1;
    return allow_spool(s, set, f) < 0 ? -1 : grant_folder_of(s, set->control, MAY_SOCKET, f);
}

struct reading {
    struct sandbox *s;
    struct failure *f;
};

/* As an error it is told now, not at a reload in a year. What is missing, or no file, whoever reads it tells. */
static int check_readable(const struct sandbox *s, const char *path, struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && errno == EACCES)
        return failure_set(
            f, EX_NOPERM,
            "cannot read %s as user %s: give the file to that user, or to its group "
            "with mode 640, and let it enter the folders above (a reload, too, reads "
            "it as that user)",
            path, s->user);
    if (fd >= 0)
        close(fd);
    return 0;
}

static int allow_file(void *owner, const char *path)
{
    struct reading *r = owner;

    return check_readable(r->s, path, r->f) < 0 ? -1
                                                : grant_around(r->s, path, LANDLOCK_MAY_READ, r->f);
}

static int check_settings(struct sandbox *s, const struct settings *set, struct failure *f)
{
    struct str file;
    const char *key;

    for (size_t i = 0; file_of(set, i, &file, &key); i++) {
        AUTO_FREE char *path = str_dup(file);
        if (!path)
            return failure_set(f, EX_SOFTWARE, "out of memory");
        if (*path && check_readable(s, path, f) < 0)
            return -1;
    }
    return 0;
}

/* ---- making it -------------------------------------------------------------------------------- */

static int confine_files(struct sandbox *s, const struct settings *set, struct failure *f)
{
    if (!s->landlock)
        return 0;
    if (allow_system(s, f) < 0 || allow_settings(s, set, f) < 0)
        return -1;
    int r = landlock_enforce(s->set);
    return r < 0 ? failure_set(f, EX_OSERR, "cannot enter the sandbox: %s", strerror(-r)) : 0;
}

static void set_text(struct sandbox *s)
{
    char files[24] = "";

    if (s->landlock)
        snprintf(files, sizeof(files), "landlock %d%s", s->landlock, s->syscalls ? ", " : "");
    snprintf(s->text, sizeof(s->text), "%s%s", files, s->syscalls ? "seccomp" : "");
    if (!s->landlock && !s->syscalls)
        snprintf(s->text, sizeof(s->text), "%s", s->wanted ? "none" : "off");
}

static int begin_rules(struct sandbox *s, struct failure *f)
{
    s->landlock = s->wanted ? landlock_version(&s->no_landlock) : 0;
    s->set = s->landlock ? landlock_new(s->landlock) : -1;
    if (s->landlock && s->set < 0)
        return failure_set(f, EX_OSERR, "cannot make the sandbox: %s", strerror(-s->set));
    return 0;
}

static int disk_read(const struct policy_files *self, const char *path, bool secret,
                     struct buf *ret);
static void disk_state(const struct policy_files *self, const char *path,
                       struct policy_file_state *ret);

int sandbox_new(const struct settings *settings, const struct policy_source *source,
                const struct identity *identity, struct sandbox **ret, struct failure *f)
{
    struct sandbox *s = calloc(1, sizeof(*s));
    struct reading reading = { .s = s, .f = f };

    if (!s)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    s->files = (struct policy_files){ .read = disk_read, .state = disk_state };
    s->wanted = settings->sandbox;
    s->stays_root = identity->stays_root;
    s->set = s->own_proc = -1;
    memcpy(s->user, identity->name, sizeof(s->user));
    int r = begin_rules(s, f);
    if (r == 0)
        r = policy_source_files(source, allow_file, &reading);
    if (r == 0)
        r = check_settings(s, settings, f);
    if (r == 0)
        r = confine_files(s, settings, f);
    if (r == 0 && s->wanted)
        s->syscalls = syscalls_confine(&s->no_syscalls) == 0;
    if (s->set >= 0)
        close(s->set);
    if (r < 0) {
        sandbox_free(s);
        return -1;
    }
    set_text(s);
    *ret = s;
    return 0;
}

struct sandbox *sandbox_free(struct sandbox *s)
{
    if (!s)
        return NULL;
    io_watch_free(s->watch);
    for (size_t i = 0; i < s->n_grants; i++)
        free(s->grants[i].path);
    if (s->own_proc >= 0)
        close(s->own_proc);
    free(s);
    return NULL;
}

/* ---- reloads ---------------------------------------------------------------------------------- */

/* By the real path, of which the last part need not be there. */
static bool within(const struct sandbox *s, const char *real, const struct stat *sb, unsigned may)
{
    for (size_t i = 0; i < s->n_grants; i++) {
        const struct grant *g = &s->grants[i];
        size_t n = strlen(g->path);
        if ((g->may & may) != may)
            continue;
        if (!g->folder && sb && g->dev == sb->st_dev && g->ino == sb->st_ino)
            return true;
        if (g->folder && strncmp(real, g->path, n) == 0 && (real[n] == '/' || real[n] == '\0'))
            return true;
    }
    return false;
}

static bool reaches(const struct sandbox *s, const char *path, unsigned may)
{
    char real[PATH_MAX], folder[PATH_MAX];
    const char *name;
    struct stat sb;

    if (!s->landlock)
        return true;
    if (realpath(path, real))
        return within(s, real, stat(real, &sb) == 0 ? &sb : NULL, may);
    return !split(path, folder, &name) || within(s, folder, NULL, may);
}

static int outside(const char *key, struct str path, struct failure *f)
{
    return failure_set(f, EX_CONFIG,
                       "'%s' is " STR_FMT ", which lies outside of the sandbox that the router "
                       "made when it started: restart it",
                       key, STR_ARG(path));
}

static int check_path(const struct sandbox *s, const char *key, struct str path, unsigned may,
                      struct failure *f)
{
    AUTO_FREE char *text = str_dup(path);

    if (!text)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    return !*text || reaches(s, text, may) ? 0 : outside(key, path, f);
}

int sandbox_check(const struct sandbox *s, const struct settings *next, struct failure *f)
{
    struct str path;
    const char *key;

    for (size_t i = 0; file_of(next, i, &path, &key); i++)
        if (check_path(s, key, path, LANDLOCK_MAY_READ, f) < 0)
            return -1;
    for (size_t i = 0; i < next->n_listen; i++)
        if (next->listen[i].addr.family == NET_UNIX &&
            check_path(s, "listen", str_of(next->listen[i].addr.path), MAY_SOCKET, f) < 0)
            return -1;
    if (logs_to_file(next) && check_path(s, "log", next->log, MAY_LOG, f) < 0)
        return -1;
    if (!next->n_dns_servers && access("/etc/resolv.conf", F_OK) == 0 &&
        !reaches(s, "/etc/resolv.conf", LANDLOCK_MAY_READ))
        return failure_set(f, EX_CONFIG,
                           "/etc/resolv.conf is not the file any more that was there when the "
                           "router started, and the sandbox holds only that one: restart it, or "
                           "name the resolvers by dns = { servers = ... }");
    return 0;
}

static int disk_read(const struct policy_files *self, const char *path, bool secret,
                     struct buf *ret)
{
    struct sandbox *s = CONTAINER_OF(self, struct sandbox, files);
    int r = policy_files_disk.read(&policy_files_disk, path, secret, ret);

    if (r == -EACCES && !reaches(s, path, LANDLOCK_MAY_READ))
        str_copy(str_of(path), s->outside, sizeof(s->outside));
    return r;
}

static void disk_state(const struct policy_files *self, const char *path,
                       struct policy_file_state *ret)
{
    policy_files_disk.state(&policy_files_disk, path, ret);
}

const struct policy_files *sandbox_files(struct sandbox *s)
{
    s->outside[0] = '\0';
    return &s->files;
}

void sandbox_explain(struct sandbox *s, struct failure *f)
{
    size_t n = strlen(f->text);

    if (s->outside[0])
        snprintf(
            f->text + n, sizeof(f->text) - n,
            "; %s lies outside of the sandbox that the router made when it started: restart it",
            s->outside);
    s->outside[0] = '\0';
}

/* ---- telling ---------------------------------------------------------------------------------- */

static void on_refused(void *owner)
{
    struct sandbox *s = owner;
    char name[64];
    int number;

    while (syscalls_refused(name, sizeof(name), &number)) {
        s->n_refused++;
        if (number < 0 || number >= TOLD_MAX || s->told[number])
            continue;
        s->told[number] = true;
        journal_event(s->journal, EVENT(EVENT_WARN, "system_call_refused", F_STRZ("call", name),
                                        F_INT("number", number)));
    }
}

static void tell_weaker(const struct sandbox *s, const char *what, const char *why)
{
    if (why)
        journal_event(s->journal, EVENT(EVENT_WARN, "sandbox_weaker", F_STRZ("missing", what),
                                        F_STRZ("why", why)));
}

int sandbox_tell(struct sandbox *s, struct io_loop *loop, struct journal *journal)
{
    s->journal = journal;
    if (s->stays_root)
        journal_event(journal, EVENT(EVENT_WARN, "runs_as_root",
                                     F_STRZ("advice", "make a user for it: docs/security.md")));
    tell_weaker(s, "landlock", s->no_landlock);
    tell_weaker(s, "seccomp", s->no_syscalls);
    if (!s->syscalls || syscalls_refused_fd() < 0)
        return 0;
    return io_watch_new(loop, syscalls_refused_fd(), on_refused, s, &s->watch);
}

const char *sandbox_text(const struct sandbox *s)
{
    return s->text;
}

uint64_t sandbox_refused(const struct sandbox *s)
{
    return s->n_refused;
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

json_t *sandbox_json(const struct sandbox *s)
{
    const char *why = s->no_landlock ? s->no_landlock : s->no_syscalls;

    return json_pack("{s:s, s:b, s:s, s:i, s:b, s:I, s:o}", "user", s->user, "root",
                     (int)s->stays_root, "sandbox", s->text, "landlock", s->landlock, "seccomp",
                     (int)s->syscalls, "refused", (json_int_t)s->n_refused, "weaker",
                     text_or_null(why));
}
