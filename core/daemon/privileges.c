/* privileges.c - who the router runs as. Layer: daemon. Interface: privileges.h. */
#include "daemon/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

static const char default_user[] = "tern";

/* ---- who -------------------------------------------------------------------------------------- */

static void set_user(struct identity *id, const struct passwd *pw)
{
    id->uid = pw->pw_uid;
    id->gid = pw->pw_gid;
    str_copy(str_of(pw->pw_name), id->name, sizeof(id->name));
}

static int no_user(const char *name, bool by_default, struct failure *f)
{
    if (!by_default)
        return failure_set(f, EX_CONFIG,
                           "there is no user '%s' to run as: make it ('useradd --system "
                           "--user-group --no-create-home --shell /usr/sbin/nologin %s'), or "
                           "correct 'user' in the configuration",
                           name, name);
    return failure_set(f, EX_CONFIG,
                       "started by root, and there is no user '%s' to run as: make it ('useradd "
                       "--system --user-group --no-create-home --shell /usr/sbin/nologin %s'), "
                       "name another one by 'user' in the configuration or by --user, or start "
                       "it as an ordinary user. --user root stays root",
                       name, name);
}

static int find_for_root(const char *wanted, struct identity *id, struct failure *f)
{
    const char *name = wanted ? wanted : default_user;

    errno = 0;
    const struct passwd *pw = getpwnam(name);
    if (!pw)
        return no_user(name, !wanted, f);
    if (strlen(pw->pw_name) >= IDENTITY_NAME)
        return failure_set(f, EX_CONFIG, "the name of the user %s is too long", name);
    set_user(id, pw);
    id->changes = id->uid != 0;
    id->stays_root = id->uid == 0;
    return 0;
}

/* Nothing to choose: it must be this one. */
static int find_for_others(const char *wanted, struct identity *id, struct failure *f)
{
    const struct passwd *pw = getpwuid(id->uid);

    if (pw)
        set_user(id, pw);
    else
        snprintf(id->name, sizeof(id->name), "%u", (unsigned)id->uid);
    id->gid = getegid();
    if (wanted && strcmp(wanted, id->name) != 0)
        return failure_set(f, EX_NOPERM,
                           "it is to run as '%s', and only root can become another user (this is "
                           "'%s'): start it as root or as '%s', or correct 'user' in the "
                           "configuration",
                           wanted, id->name, wanted);
    return 0;
}

int identity_find(const char *asked, struct str configured, struct identity *ret, struct failure *f)
{
    struct identity id = { .uid = geteuid() };
    AUTO_FREE char *from_file = configured.n ? str_dup(configured) : NULL;
    const char *wanted = asked && *asked ? asked : from_file;

    if (configured.n && !from_file)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    int r = id.uid == 0 ? find_for_root(wanted, &id, f) : find_for_others(wanted, &id, f);
    if (r == 0)
        *ret = id;
    return r;
}

int identity_make_folder(const struct identity *id, const char *path, mode_t mode,
                         struct failure *f)
{
    if (!id->changes)
        return 0;
    if (mkdir(path, mode) < 0) {
        /* Whoever opens something in there says what is wrong with it. */
        return errno == EEXIST || errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : failure_set(f, EX_CANTCREAT, "cannot make the folder %s: %s", path,
                                 strerror(errno));
    }
    if (lchown(path, id->uid, id->gid) == 0)
        return 0;
    int e = errno;
    rmdir(path);
    return failure_set(f, EX_OSERR, "cannot give the folder %s to %s: %s", path, id->name,
                       strerror(e));
}

/* ---- giving up -------------------------------------------------------------------------------- */

static int refused(struct failure *f, const char *what)
{
    return failure_set(f, EX_OSERR, "cannot give up privileges: %s: %s", what, strerror(errno));
}

static int set_capabilities(const struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

    return (int)syscall(SYS_capset, &header, data);
}

static int get_capabilities(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

    return (int)syscall(SYS_capget, &header, data);
}

/* What no program that it might run could win back either. Some containers forbid that, and
 * no_new_privs has the same end. */
static void drop_bounding_set(void)
{
    for (int c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
        prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
}

static int become(const struct identity *id, struct failure *f)
{
    drop_bounding_set();
    if (initgroups(id->name, id->gid) < 0)
        return refused(f, "initgroups");
    if (setresgid(id->gid, id->gid, id->gid) < 0)
        return refused(f, "setresgid");
    if (setresuid(id->uid, id->uid, id->uid) < 0)
        return refused(f, "setresuid");
    return 0;
}

static int drop_capabilities(struct failure *f)
{
    static const struct __user_cap_data_struct none[2];

    /* A kernel that knows no ambient ones (before 4.3) has none to clear. */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return refused(f, "ambient capabilities");
    return set_capabilities(none) < 0 ? refused(f, "capset") : 0;
}

static int not_gone(struct failure *f, const char *what)
{
    return failure_set(f, EX_SOFTWARE, "privileges were given up, and %s: this must not be", what);
}

static int verify(const struct identity *id, struct failure *f)
{
    struct __user_cap_data_struct caps[2] = { 0 };
    uid_t uid[3];
    gid_t gid[3];

    if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0)
        return refused(f, "asking who we are");
    for (int i = 0; i < 3; i++)
        if (uid[i] != id->uid || (id->changes && gid[i] != id->gid))
            return not_gone(f, "a user or group of before is left");
    if (get_capabilities(caps) < 0)
        return refused(f, "capget");
    for (int i = 0; i < 2; i++)
        if (caps[i].effective || caps[i].permitted || caps[i].inheritable)
            return not_gone(f, "capabilities are left");
    if (setuid(0) == 0 || seteuid(0) == 0)
        return not_gone(f, "the way back to root is open");
    if (id->changes && setgroups(0, NULL) == 0)
        return not_gone(f, "groups can be changed");
    return 0;
}

/* Debuggers of root's can still look at the process; its own user's cannot, for what is in its memory is mail
 * and passwords of others. */
static int set_core_dumps(bool wanted, struct failure *f)
{
    struct rlimit limit;

    /* A change of the user has taken it away. */
    if (prctl(PR_SET_DUMPABLE, wanted ? 1 : 0, 0, 0, 0) < 0)
        return refused(f, "PR_SET_DUMPABLE");
    if (wanted || getrlimit(RLIMIT_CORE, &limit) < 0)
        return 0;
    limit.rlim_cur = 0;
    return setrlimit(RLIMIT_CORE, &limit) < 0 ? refused(f, "RLIMIT_CORE") : 0;
}

int privileges_drop(const struct identity *id, bool core_dumps, struct failure *f)
{
    if (id->changes && become(id, f) < 0)
        return -1;
    if (!id->stays_root && (drop_capabilities(f) < 0 || verify(id, f) < 0))
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return refused(f, "no_new_privs");
    return set_core_dumps(core_dumps, f);
}
